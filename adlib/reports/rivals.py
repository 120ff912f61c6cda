"""What a discriminative network adds to the reconstruction that it judges: its map against the reconstruction's errors.

The rivals are error maps of the same trained reconstruction (`Draem.parts`), scored exactly as the system itself: same
pictures, views and grid, and the same mean filter before the maximum. For the pixel metrics each of them is also tried
smoothed, against the system's own map smoothed by the same filter. Of all rivals the strongest over all seeds counts,
for each category and metric.
"""

import numpy as np
import pandas as pd

from adlib import data, evaluation, images, metrics
from adlib.common.seeds import stream
from adlib.embeddings import Embeddings
from adlib.metrics.names import label
from adlib.models.base import Scores
from adlib.models.draem import smoothed
from adlib.reports.measured import by_category
from adlib.views import Views

ERRORS = {"squared error": "error", "1 - SSIM": "ssim"}  # rival: its part of `Draem.parts`
OURS, SMOOTHED = "D (ours)", ", smoothed"  # a name, and what follows it where both maps are smoothed
PIXEL = ("pixel_auroc", "pixel_ap", "aupro@0.3")


class ErrorMap:
    """A trained Draem that scores by one map of its `parts` alone.

    part: "error" (squared, mean over colours), "ssim" (1 - similarity) or, for comparison, D's own "probability";
    smooth: the map is smoothed, too. The image score is the maximum after the system's own mean filter in any case.
    """

    def __init__(self, detector, part: str, smooth: bool = False):
        self.detector, self.part, self.smooth = detector, part, smooth

    def __getattr__(self, name: str):
        return getattr(self.detector, name)  # config, pool, eval: those of the system

    def score(self, batch) -> Scores:
        """Image scores [B], map [B,S,S], and the cells of which the image score is the maximum."""
        error = self.detector.parts(batch)[self.part]
        cells = smoothed(error, self.detector.side)
        return Scores(self.detector.pool(cells), cells if self.smooth else error, cells)


def against_errors(runs, device: str = "cpu") -> tuple[pd.DataFrame, pd.DataFrame]:
    """(values, leads) of DRAEM's runs against the error maps of their reconstructions; all numbers 0..1.

    values: category, seed, rival, metric, value, ours (where the rival is smoothed, so is ours). leads: for each
    category and metric against its strongest rival: rival, ours, value (means over seeds), lead, low, high (paired
    95 % interval over test images), ahead (seeds).
    """
    tables = [_category(category, of_category, device) for category, of_category in by_category(runs).items()]
    values, leads = (pd.concat([pair[k] for pair in tables], ignore_index=True) for k in (0, 1))
    return values, leads


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Values of `against_errors` in percent, a row per category, metric and map, ours first; a column per seed."""
    own = values.assign(rival=values.rival.map(_ours), value=values.ours)
    own = own.drop_duplicates(["category", "metric", "seed", "rival"])
    both = pd.concat([own, values]).assign(metric=lambda t: t.metric.map(label), value=lambda t: 100 * t.value)
    wide = both.pivot_table(index=["category", "metric", "rival"], columns="seed", values="value", sort=False)
    order = both.drop_duplicates(["category", "metric"])[["category", "metric"]].itertuples(index=False)
    blocks = [wide.loc[[row for row in wide.index if row[:2] == tuple(pair)]] for pair in order]
    return pd.concat(blocks).round(1).add_prefix("seed ").rename_axis(columns=None)


def _ours(rival: str) -> str:
    """The name of our map that is treated as this rival's."""
    return OURS + SMOOTHED if rival.endswith(SMOOTHED) else OURS


def _category(category: str, runs: list, device: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    tried = [_Tried(run, category, device) for run in runs]
    values = pd.DataFrame([row for one in tried for row in one.rows()])
    return values, pd.DataFrame([_lead(tried, of_metric) for _, of_metric in values.groupby("metric", sort=False)])


def _lead(tried: list["_Tried"], values: pd.DataFrame) -> dict:
    """Against the rival with the highest mean over the seeds."""
    name, metric = values.groupby("rival", sort=False).value.mean().idxmax(), values.metric.iloc[0]
    rows = values[values.rival == name]
    low, high = _image_interval(tried, name) if metric == "image_auroc" else _pixel_interval(tried, name, metric)
    means = {"ours": rows.ours.mean(), "value": rows.value.mean()}
    row = {"category": values.category.iloc[0], "metric": metric, "rival": name, **means}
    row |= {"lead": means["ours"] - means["value"], "low": low, "high": high}
    return row | {"ahead": int((rows.ours > rows.value).sum()), "seeds": len(rows)}


def _image_interval(tried: list["_Tried"], name: str) -> tuple[float, float]:
    ours = np.stack([one.own.score.to_numpy() for one in tried])
    theirs = np.stack([one.scored[name].scores for one in tried])
    interval = metrics.paired_interval(tried[0].own.label.to_numpy(), ours, theirs)
    return interval.low, interval.high


def _pixel_interval(tried: list["_Tried"], name: str, metric: str) -> tuple[float, float]:
    gaps = [one.replicates_of(_ours(name))[metric] - one.replicates_of(name)[metric] for one in tried]
    low, high = np.nanpercentile(np.mean(gaps, axis=0), [2.5, 97.5])
    return float(low), float(high)


class _Tried:
    """One run on one category: what it says itself, and what each rival says of the same test images."""

    def __init__(self, run, category: str, device: str):
        self.run, self.category = run, category
        self.own = run.scores[run.scores.category == category]
        self.values = run.record["per_category"][category]["metrics"]
        detector, table = run.detector(device), data.load(run.record["dataset"], category)
        geometry, size = detector.config.geometry, run.record["protocol"]["metric_size"]
        views, test = Views.of(table, geometry), np.flatnonzero(table.split == "test")
        self.seed = stream(0, table.attrs["fingerprint"])  # of the run's own replicates, so that images are paired
        self.truth = evaluation.PixelTruth(
            table.iloc[test], geometry.at(size), detector.config.mask_rule, views.subset(test)
        )
        pictures = Embeddings([[images.cached(table, geometry, views=True)]], single=True).subset(views.rows(test))
        self.localised = self.truth.usable and all(f"{category}/{metric}" in run.replicates for metric in PIXEL)
        maps = {name: ErrorMap(detector, part) for name, part in ERRORS.items()}
        if self.localised:
            maps |= {name + SMOOTHED: ErrorMap(detector, part, smooth=True) for name, part in ERRORS.items()}
            maps[OURS + SMOOTHED] = ErrorMap(detector, "probability", smooth=True)
        self.scored = {
            name: evaluation.score_all(scoring, pictures, size, device, views=views.subset(test))
            for name, scoring in maps.items()
        }
        self._drawn = {OURS: {metric: run.replicates.get(f"{category}/{metric}") for metric in PIXEL}}

    def rows(self):
        """Rows of `values` for each rival; a smoothed map has the image score of the map itself."""
        labels, seed = self.own.label.to_numpy(), self.run.record["seed"]
        pixel = lambda name: evaluation.pixel_metrics(self.truth, self.scored[name].maps) if self.localised else {}
        ours = {OURS: self.values, OURS + SMOOTHED: pixel(OURS + SMOOTHED)}
        for name in [name for name in self.scored if not name.startswith(OURS)]:
            scores = self.scored[name].scores
            found = {} if name.endswith(SMOOTHED) else {"image_auroc": metrics.image_auroc(labels, scores)}
            found |= pixel(name)
            for metric in ("image_auroc", *PIXEL):
                if metric in found:
                    row = {"category": self.category, "seed": seed, "rival": name, "metric": metric}
                    yield row | {"value": found[metric], "ours": ours[_ours(name)][metric]}

    def replicates_of(self, name: str) -> dict[str, np.ndarray]:
        """Bootstrap draws {metric: [B]} of a rival's map or of ours; ours as it is: the run's own. Same images."""
        if name not in self._drawn:
            self._drawn[name] = evaluation.pixel_replicates(self.truth, self.scored[name].maps, self.seed)
        return self._drawn[name]
