"""Ablations: one factor at a time against a base, on the same seeds and test images, so that differences are paired.

A result is {(factor, variant): Runs} with ("base", "") first. Differences are variant minus base; their 95 % intervals
resample the test images jointly for both (`metrics.paired_interval`; pixel metrics: the replicates of the run folders,
which draw the same images in every run on the same data). Source: specs/common 4.8.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from adlib import data, images, metrics, runs
from adlib.common.errors import UserError
from adlib.metrics.names import FLOOR, RESAMPLED, best_epoch, label
from adlib.reports import measured
from adlib.views import Views

BASE = ("base", "")
NAMES = {"noise_std": "sigma", "image_size": "side", "layers": "levels"}  # of config fields, for readers
SPOKEN = {
    "loss=ce": "cross-entropy",
    "adapter_layers=0": "no adapter",
    "adapter_layers=1": "linear adapter",
    "adapter_layers=2": "adapter of two layers",
    "layers=[2]": "fine level only",
    "layers=[3]": "coarse level only",
    "noise_relative=0.1": "sigma 0.1 x spread",
    "noise_relative=1.0": "sigma 1 x spread",
    "actnorm=False": "no ActNorm",
    "cbam_fb=False": "no CBAM in FB",
    "cross13=False": "no extra branches in FB",
    "cbam_fb=False, cross13=False": "neither CBAM nor extra branches in FB",
    "ssim_weight=0.0": "loss without SSIM",
    "l1_weight=0.0": "loss without l1",
    "ssim=windowed": "SSIM in windows",
    "augment=none": "no augmentation",
    "augment=all": "crop, rotation and flip",
    "branches=memory": "memories only",
    "branches=edge": "edges only",
    "ssim_weight=0.0, entropy_weight=0.0": "l2 alone",
    "ssim_weight=0.0, entropy_weight=0.0002": "l2 and entropy",
    "use_l2=False, entropy_weight=0.0": "SSIM alone",
    "use_l2=False": "SSIM and entropy",
    "entropy_weight=0.0": "l2 and SSIM",
    "attention=none": "no attention",
    "attention=se": "squeeze-and-excitation",
    "attention=cbam": "CBAM",
    "entropy_reduction=sum": "entropy summed, as printed",
    "corruption=none": "input not damaged",
    "dead=zero": "lost places are 0",
}


def variants(base: dict, grid: dict) -> dict[tuple[str, str], dict]:
    """{(factor, variant): config}, the base first; a value that is the base's own is left out.

    grid: {config field: [values]}, or {any name: [mappings of config fields]} where one step changes several fields.
    """
    configs = {BASE: dict(base)}
    for factor, values in grid.items():
        if not isinstance(values, list | tuple) or not values:
            raise UserError(f"grid entry {factor!r} is {values!r}; it must be a list of values or of mappings")
        for value in values:
            change = value if isinstance(value, dict) else {factor: value}
            if any(base.get(k, object()) != v for k, v in change.items()):
                name = ", ".join(f"{k}={v}" for k, v in change.items() if v is not None)
                configs[factor, name] = base | change
    return configs


def reproduce(
    method, dataset, categories, seeds, base: dict, grid: dict, device: str = "auto", together: bool = False
) -> dict:
    """Train or load the base and every variant: {(factor, variant): Runs}. Raises UserError before any training."""
    plans = variants(base, grid)
    for config in plans.values():
        runs.plans(method, dataset, categories, seeds, config, together)
    results, seen = {}, set()
    for key, config in plans.items():
        done = runs.reproduce(method, dataset, categories, seeds, config, device, together)
        identity = tuple(run.record["hash"] for run in done)
        if identity not in seen:  # a default spelt out is the base again
            results[key] = done
            seen.add(identity)
    return results


def differences(results: dict, names: tuple[str, ...] = ("image_auroc", "pixel_auroc")) -> pd.DataFrame:
    """One row per variant and metric: factor, variant, metric, base, value, difference, low, high, seeds, reading.

    seeds: the difference of each seed, a list. Numbers are 0..1.

    `attrs["notes"]`: where the data came from, if they are no originals.
    """
    rows = []
    for (factor, variant), other in results.items():
        if (factor, variant) == BASE:
            continue
        for name in names:
            numbers = paired(results[BASE], other, name)
            if numbers is not None:
                row = {"factor": factor, "variant": variant, "metric": name} | numbers
                rows.append(row | {"reading": reading(numbers["low"], numbers["high"], numbers["seeds"])})
    table = pd.DataFrame(rows)
    table.attrs["notes"] = measured.provenance([run.record for part in results.values() for run in part])
    return table


def seed_by_seed(results: dict, factors: Sequence[str], names: tuple[str, ...]) -> pd.DataFrame:
    """A row per setting and seed, the base and the variants of some factors: metrics in percent, mean over categories.

    Index: setting (as `spoken`), seed; columns: names. NaN where a metric was not measured.
    """
    rows = []
    for key, found in results.items():
        if key == BASE or key[0] in factors:
            setting = "base" if key == BASE else spoken(*key)
            for seed in dict.fromkeys(run.record["seed"] for run in found):
                of = [(run, c) for run in found if run.record["seed"] == seed for c in run.record["per_category"]]
                values = {name: 100 * np.mean([_value(run, c, name) for run, c in of]) for name in names}
                rows.append({"setting": setting, "seed": seed} | values)
    return pd.DataFrame(rows).set_index(["setting", "seed"])


def luck(table: pd.DataFrame, metric: str) -> str:
    """A sentence on a table of `seed_by_seed`: whether settings are farther apart than the seeds of one setting."""
    groups = table[metric].groupby("setting", sort=False)
    between, within = groups.mean().std(ddof=1), groups.std(ddof=1).mean()
    said = f"{label(metric)}: the settings differ by {between:.1f} points (standard deviation)"
    if np.isnan(within):
        return f"{said}; with one seed each, how much of it is luck cannot be told."
    verdict = "**below** the seeds: the order is mostly luck" if between < within else "above the seeds"
    return f"{said}, seeds of one setting by {within:.1f}: {verdict}."


def reading(low: float, high: float, seeds: Sequence[float] = ()) -> str:
    """What a paired 95 % interval of (variant - base) and the differences of single seeds allow to say.

    "better" or "worse" only where the interval excludes 0 and every seed has that sign.
    """
    if np.isnan([low, high]).any():
        return "no interval"
    if low <= 0 <= high:
        return "no difference shown"
    sign = 1 if low > 0 else -1
    agreed = all(sign * seed > 0 for seed in seeds)
    return ("better" if sign > 0 else "worse") + ("" if agreed else ", but not in every seed")


def spoken(factor: str, variant: str) -> str:
    """A variant for readers: "sigma 0.015", "no adapter", else "field value"; a factor's name where it is not clear."""
    if variant in SPOKEN:
        return SPOKEN[variant]
    parts = []
    for part in variant.split(", "):
        field, _, value = part.partition("=")
        said = value.strip("[]") if field == "layers" else value
        parts.append(f"{NAMES.get(field, field.replace('_', ' '))} {said}" if value else part)
    return ", ".join(part for part in parts if not part.startswith("metric size")) or factor


def answer(table: pd.DataFrame, factors: Sequence[str]) -> str:
    """Markdown: what a table of `differences` says of some factors, a line per variant and metric; every seed is shown.

    A factor that the table does not have gives a sentence.
    """
    chosen = table[table.factor.isin(factors)] if len(table) else table
    if not len(chosen):
        return "This run does not vary it."
    lines = []
    for row in chosen.itertuples():
        seeds = ", ".join(f"{100 * seed:+.1f}" for seed in row.seeds)
        bar = "" if np.isnan(row.low) else f" [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
        each = f"; seed by seed {seeds}" if len(row.seeds) > 1 else "; one seed"
        name = f"**{spoken(row.factor, row.variant)}**, {label(row.metric)}"
        lines.append(f"- {name}: {100 * row.difference:+.1f} points{bar}{each}: *{row.reading}*.")
    return "\n".join(lines)


def paired(base, other, metric: str = "image_auroc") -> dict | None:
    """base, value, difference (other - base, mean over categories, seeds), its interval, and that of each seed; None if
    not measured.

    Raises UserError where the two were not run on the same images and seeds.
    """
    a, b = measured.by_category(other), measured.by_category(base)
    seeds = {c: [r.record["seed"] for r in part] for c, part in b.items()}
    if {c: [r.record["seed"] for r in part] for c, part in a.items()} != seeds:
        raise UserError(f"a paired difference needs the same categories and seeds; the base has {seeds}")
    means = [np.mean([_value(r, c, metric) for c, part in side.items() for r in part]) for side in (b, a)]
    if np.isnan(means).any():
        return None
    if metric in RESAMPLED:
        low, high = _image_interval(a, b, RESAMPLED[metric])
    else:
        low, high = _pixel_interval(a, b, metric)
    values = {"base": means[0], "value": means[1], "difference": means[1] - means[0]}
    gaps = [[_value(r, c, metric) - _value(s, c, metric) for r, s in zip(a[c], b[c], strict=True)] for c in b]
    return values | {"low": low, "high": high, "seeds": np.mean(gaps, axis=0).tolist()}


def oracle_gap(finished) -> pd.DataFrame:
    """Last epoch against the best epoch on the test set (an oracle), per category: what selection on test labels adds.

    Columns: last, oracle, difference (means over seeds, 0..1), epochs (the chosen ones). Empty where no epoch but the
    last was looked at (config eval_every 0).
    """
    rows, names = [], ("image_auroc", best_epoch("image_auroc"))
    for category, part in measured.by_category(finished).items():
        last, best = (np.mean([_value(r, category, name) for r in part]) for name in names)
        chosen = ", ".join(str(r.record["oracle_epoch"]) for r in part)
        if not np.isnan(best):
            rows.append(
                {"category": category, "last": last, "oracle": best, "difference": best - last, "epochs": chosen}
            )
    table = pd.DataFrame(rows, columns=["category", "last", "oracle", "difference", "epochs"])
    table.attrs["notes"] = measured.provenance([run.record for run in finished])
    return table


def _value(run, category: str, metric: str) -> float:
    return run.record["per_category"][category]["metrics"].get(metric, np.nan)


def _stacked(runs_of: list, category: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(paths, labels [N], scores [seeds, N]) of one category, in the order of the paths."""
    tables = [r.scores[r.scores.category == category].sort_values("path") for r in runs_of]
    return list(tables[0].path), tables[0].label.to_numpy(), np.stack([t.score.to_numpy() for t in tables])


def _image_interval(a: dict, b: dict, metric: str) -> tuple[float, float]:
    left, right = ([_stacked(part, c) for c, part in side.items()] for side in (a, b))
    if [x[0] for x in left] != [x[0] for x in right]:
        raise UserError("a paired difference needs the same test images; these runs were scored on different ones")
    low, high = metrics.paired_interval([x[1] for x in left], [x[2] for x in left], [x[2] for x in right], metric)
    return low, high


def _pixel_interval(a: dict, b: dict, metric: str) -> tuple[float, float]:
    try:
        draws = [
            np.mean([r.replicates[f"{c}/{metric}"] for r in a[c]], axis=0)
            - np.mean([r.replicates[f"{c}/{metric}"] for r in b[c]], axis=0)
            for c in a
        ]
    except KeyError:  # no replicates: streamed metrics of very large sets
        return np.nan, np.nan
    low, high = np.nanpercentile(np.mean(draws, axis=0), [2.5, 97.5])
    return float(low), float(high)


def direction(base) -> pd.DataFrame:
    """Whether a score is upside down: AUROC, that of the negated score, the floor of mean brightness; 0..1, per run."""
    rows = []
    for run in base:
        for category, tests in run.scores.groupby("category", sort=False):
            auroc, negated = (metrics.image_auroc(tests.label, sign * tests.score) for sign in (1, -1))
            floor = run.record["per_category"][category]["metrics"][FLOOR]
            row = {"category": category, "seed": run.record["seed"], "AUROC": auroc, "negated": negated, "floor": floor}
            rows.append(row | {"suspect": negated > auroc or auroc < floor})
    return pd.DataFrame(rows).set_index(["category", "seed"])


def noise(results: dict, count: int = 16) -> pd.DataFrame:
    """SimpleNet's sigma against the spread of its features, and what training made of it, a row per noise setting.

    Of the first seed; columns: sigma, spread (mean deviation over `count` training pictures, feature units), their
    ratio, loss of the last epoch, image AUROC (0..1), and whether nothing was learnt.
    """
    rows = []
    for (factor, variant), found in results.items():
        if (factor, variant) == BASE or factor.startswith("noise"):
            first = next(iter(found)).record["seed"]
            for run in (run for run in found if run.record["seed"] == first):
                name = spoken(factor, variant) if variant else "base"
                rows.append({"category": run.record["category"], "variant": name} | _noise_of(run, count))
    return pd.DataFrame(rows).sort_values(["category", "sigma"]).set_index(["category", "variant"])


def _noise_of(run, count: int) -> dict:
    detector, table = run.detector(), data.load(run.record["dataset"], run.record["category"])
    stored = images.cached(table, detector.config.geometry, views=True)
    rows = Views.of(table, detector.config.geometry).rows(np.flatnonzero(table.split == "train")[:count])
    with torch.inference_mode():
        spread = detector.rows(detector.embed(images.to_float(stored[rows]))).std(0).mean().item()
    sigma = detector.noise_std.item()
    found = {"sigma": sigma, "spread": spread, "sigma / spread": sigma / spread, "loss": run.history.total.iloc[-1]}
    return found | {"image AUROC": run.record["metrics"]["image_auroc"], "learnt": not detector.doubt(run.history)}


def worst_category(base) -> str:
    """The category with the lowest image AUROC, mean over seeds."""
    means = {
        category: np.mean([_value(run, category, "image_auroc") for run in part])
        for category, part in measured.by_category(base).items()
    }
    return min(means, key=means.get)
