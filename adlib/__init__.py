"""adlib: reproductions of five papers on unsupervised industrial image anomaly detection, read through notebooks.

`reproduce(method, dataset, categories, seeds, config)` is the one entry: it trains what is missing and loads the rest.
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    # Lazy, so that `python -m adlib --help` does not wait for torch.
    if name in {"reproduce", "load"}:
        from adlib import runs

        return getattr(runs, name)
    raise AttributeError(f"module 'adlib' has no attribute {name!r}")
