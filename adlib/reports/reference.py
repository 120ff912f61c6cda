"""Finished runs against reference runs of the same method on the same test images: a verdict per metric.

Compared are runs of one setting on one category, over their seeds, with those of the reference that have the same
images and split (fingerprint of the data); other images are named and never judged. Of the reference's settings one
is taken, see adlib.reports.nearest: that of the same identity (hash), else the nearest. The words are those of
`published.VERDICTS`:

reproduced      equal means, to half of the last digit that tables print, or the 95 % interval of the paired difference
                holds 0: the same test images are drawn for both sides (specs/common 4.8)
within noise    else at most 2 standard errors of the difference of the seed means apart, sqrt(sd1^2/n1 + sd2^2/n2); a
                side of one seed is taken to vary as the other does
not reproduced  farther apart, whichever is higher; or a metric that the reference has and our runs lack, where no
                setting differs
not comparable  other images, a field that makes another experiment, a metric that only we have, or no interval
not run         a run that was to exist, and the reference has

A metric without bootstrap draws has no paired difference: there the mean of one side lies in the interval of the other.
"""

import numpy as np
import pandas as pd

from adlib.metrics.intervals import TAILS
from adlib.metrics.names import SHOWN
from adlib.reports import measured, nearest, verdict
from adlib.reports.comparison import Contender, place_of
from adlib.runs.run import Runs

# Half of 0.1 percent: two machines add floats in another order, and paired draws tell even such means apart
TOLERANCE = 0.0005
OTHER_IMAGES = "other test images"
MEASURED = ("sd", "n_seeds", "n_images", "low", "high", "interval_method")
OF_REFERENCE = ("reference", "reference_sd", "reference_n", "reference_low", "reference_high", "reference_hash")
FACTS = ("method", "dataset", "category", "hash", "metric")
COLUMNS = (*FACTS, "measured", *MEASURED, *OF_REFERENCE, "differs", "verdict", "reason")


def compare(runs: Runs, reference: Runs) -> pd.DataFrame:
    """A row per setting, category and metric of `runs`, and of their gaps, that the reference has too; 0..1.

    Columns: method, dataset, category, hash, metric, measured, sd, n_seeds, n_images, low, high, interval_method; of
    the reference's runs reference (mean), reference_sd, reference_n, reference_low, reference_high, reference_hash;
    differs, verdict, reason. Runs that are the reference's own files are not compared with themselves.
    attrs["notes"]: sentences on those, on what the reference has no runs of, and on its stale runs.
    """
    files = {run.path.resolve() for run in runs}
    others = nearest.by_place(run for run in reference if run.path.resolve() not in files)
    parts = [(part, others.get(nearest.place(part), [])) for part in nearest.parts(runs)]
    pairs = [(part, nearest.choose(part, candidates)) for part, candidates in parts if candidates]
    gaps = _gaps(runs, others)
    used = {run.path: run for _, theirs in [*pairs, *gaps] if theirs for run in theirs.runs}
    metrics = Runs(list(used.values())).metrics if used else None
    for part, _ in pairs:
        _known(part, runs.metrics)
    for _, theirs in [*pairs, *gaps]:
        if theirs:
            _known(theirs, metrics)
    rows = [row for part, theirs in pairs for row in _rows(part, theirs)]
    for facts, theirs in gaps:
        numbers = _numbers(theirs)
        rows += [facts | _gap(metric, numbers[metric], theirs) for metric in SHOWN if metric in numbers]
    table = pd.DataFrame(rows, columns=COLUMNS)
    alone = [part for part, candidates in parts if not candidates]
    same_files = files & {run.path.resolve() for run in reference}
    table.attrs["notes"] = [*_notes(alone, same_files), *measured.stale(used.values(), "reference runs: ")]
    return table


def _notes(alone: list[Contender], same_files: set) -> list[str]:
    notes = []
    if same_files:
        notes.append(
            f"{len(same_files)} of the runs are the reference's own files, which are not compared with themselves."
        )
    places = [
        f"{part.name} on {' '.join(place_of(part.record, part.category))}"
        for part in alone
        if not {run.path.resolve() for run in part.runs} <= same_files
    ]
    if places:
        notes.append(f"The reference has no run of {', '.join(dict.fromkeys(places))}.")
    return notes


def _known(part: Contender, metrics: pd.DataFrame) -> None:
    """Give a part its `numbers` from a table of many runs, so that no interval is drawn a second time."""
    rows = metrics[(metrics["hash"] == part.record["hash"]) & (metrics["category"] == part.category)]
    vars(part)["numbers"] = rows[rows["method"] == part.method].set_index("metric")


def _numbers(part: Contender) -> dict[str, pd.Series]:
    """{metric: its row of `Contender.numbers`} of those that are shown and defined."""
    known = part.numbers[part.numbers["mean"].notna()]
    return {metric: known.loc[metric] for metric in SHOWN if metric in known.index}


def _rows(part: Contender, theirs: Contender | None) -> list[dict]:
    """The rows of a part whose method and category the reference has; theirs: None where the images are others."""
    values = (part.method, *place_of(part.record, part.category), part.record["hash"])
    facts = dict(zip(FACTS, values, strict=False))
    here, there = _numbers(part), _numbers(theirs) if theirs else {}
    rows = []
    for metric in SHOWN:
        row = facts | {"metric": metric} | _measured(here.get(metric)) | _of_reference(there.get(metric), theirs)
        if theirs is None and metric in here:
            rows.append(row | {"differs": "", "verdict": "not comparable", "reason": OTHER_IMAGES})
        elif metric in here or metric in there:
            differing = {
                field: text
                for field, text in nearest.differences(part.record, theirs.record).items()
                if verdict.concerns(field, metric)
            }
            same = theirs.record["hash"] == part.record["hash"]
            forbidding = [] if same else list(filter(nearest.forbids, differing))
            paired = None if forbidding else paired_interval(part, theirs, metric)
            decision, reason = judge(here.get(metric), there.get(metric), forbidding, paired)
            rows.append(row | {"differs": "; ".join(differing.values()), "verdict": decision, "reason": reason})
    return rows


def _measured(numbers: pd.Series | None) -> dict:
    if numbers is None:
        return {"n_seeds": 0, "n_images": 0, "interval_method": ""}
    return {"measured": numbers["mean"]} | {k: numbers[k] for k in MEASURED}


def _of_reference(numbers: pd.Series | None, theirs: Contender | None) -> dict:
    row = {"reference_n": 0, "reference_hash": theirs.record["hash"] if theirs else ""}
    if numbers is None:
        return row
    row |= {"reference": numbers["mean"], "reference_n": numbers["n_seeds"]}
    return row | {f"reference_{k}": numbers[k] for k in ("sd", "low", "high")}


def paired_interval(part: Contender, theirs: Contender, metric: str) -> tuple[float, float] | None:
    """95 % interval of ours - reference, means over seeds, on equal images; None where a side has no draws."""
    own, other = part.draws(metric), theirs.draws(metric)
    if own is None or other is None or own.shape != other.shape:
        return None
    return tuple(np.nanpercentile(own - other, TAILS))


def judge(
    ours: pd.Series | None,
    theirs: pd.Series | None,
    forbidding: list[str],
    paired: tuple[float, float] | None = None,
) -> tuple[str, str]:
    """(verdict, reason) by the rule at the top. ours, theirs: mean, sd, n_seeds, low, high, 0..1; None: not defined.

    paired: see `paired_interval`; None: by the intervals of the two sides.
    """
    if theirs is None:
        return "not comparable", "not defined in the reference"
    if forbidding:
        return "not comparable", f"differs in {', '.join(forbidding)}"
    if ours is None:
        return "not reproduced", "our runs lack it"
    gap = abs(ours["mean"] - theirs["mean"])
    if gap <= TOLERANCE:
        return "reproduced", "equal means"
    if paired is not None:
        meant = "paired 95 % interval"
        if paired[0] <= 0 <= paired[1]:
            return "reproduced", f"the {meant} of the difference holds 0"
    elif _inside(theirs["mean"], ours) or _inside(ours["mean"], theirs):
        return "reproduced", "the mean of one lies in the 95 % interval of the other"
    elif np.isnan([ours["low"], theirs["low"]]).all():
        return "not comparable", "no interval was computed"
    else:
        meant = "intervals"
    if gap <= 2 * _standard_error(ours, theirs):  # NaN, where no side has two seeds: never
        return "within noise", f"outside the {meant}, within 2 standard errors over seeds"
    return "not reproduced", f"{gap:.3g} from the reference, outside the {meant}"


def _standard_error(ours: pd.Series, theirs: pd.Series) -> float:
    """Of the difference of the two means over seeds; a side of one seed has the sd of the other."""
    sds = [other["sd"] if side["n_seeds"] < 2 else side["sd"] for side, other in ((ours, theirs), (theirs, ours))]
    return float(np.sqrt(sds[0] ** 2 / ours["n_seeds"] + sds[1] ** 2 / theirs["n_seeds"]))


def _inside(mean: float, numbers: pd.Series) -> bool:
    return numbers["low"] <= mean <= numbers["high"]


def _gaps(runs: Runs, others: dict[tuple, list[Contender]]) -> list[tuple[dict, Contender]]:
    """(facts of a row, the reference's setting) of settings and categories that no finished run has."""
    finished = {(part.record["hash"], part.category) for part in nearest.parts(runs)}
    gaps = {}
    for missing in runs.missing:
        for category in missing.categories:
            place = place_of({"dataset": missing.dataset}, category)
            candidates = others.get((missing.method, *nearest.bare(*place)))
            if candidates and (missing.hash, category) not in finished:
                facts = dict(zip(FACTS, (missing.method, *place, missing.hash), strict=False))
                theirs = min(candidates, key=lambda part: part.record["hash"] != missing.hash)
                gaps[missing.hash, category] = (facts, theirs)
    return list(gaps.values())


def _gap(metric: str, numbers: pd.Series, theirs: Contender) -> dict:
    row = {"metric": metric} | _measured(None) | _of_reference(numbers, theirs)
    return row | {"differs": "", "verdict": "not run", "reason": "no finished run"}
