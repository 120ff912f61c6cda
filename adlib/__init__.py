"""adlib: reproductions of five papers on unsupervised industrial image anomaly detection, read through notebooks.

`reproduce(method, dataset, categories, seeds, config)` is the one entry: it trains what is missing and loads the rest.
"""

import warnings

__version__ = "0.1.0"  # the one place; pyproject.toml reads it here, so it is known without an installation

# timm imports a notebook progress bar that it does not use here; without ipywidgets that bar warns at import
warnings.filterwarnings("ignore", message="IProgress not found")


def __getattr__(name: str):
    # Lazy, so that `python -m adlib --help` does not wait for torch.
    if name in {"reproduce", "load"}:
        from adlib import runs

        return getattr(runs, name)
    raise AttributeError(f"module 'adlib' has no attribute {name!r}")
