"""What a run shows, in sentences made from it: every seed, what warns, and which rival it is ahead of."""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from adlib.metrics.names import FLOOR, MEASURED_AS, SHOWN, label
from adlib.reports import measured, printing
from adlib.reports.cautions import cautions

APART = 0.05  # seeds farther apart than this are told
FOLLOWS = 0.5  # rank correlation of brightness and score from which on it is told
GREY = "mean_grey"


def shows(runs, rivals: pd.DataFrame | None = None) -> str:
    """Markdown: a table of every seed's numbers, then what they show and what warns, as a list.

    rivals: rows rival, category, seed, metric, value (0..1); with a column `ours` our value made in the same way, else
    that of the run is compared. Of all rivals the strongest over all seeds counts, for each metric.
    """
    per_seed = _per_seed(runs)
    lines = [line for category in dict.fromkeys(per_seed.category) for line in _category(runs, per_seed, category)]
    if rivals is not None and len(rivals):
        lines += _against(per_seed, rivals)
    lines += cautions([run.record for run in runs.runs])
    return _table(per_seed) + "\n\n" + "\n".join(f"- {line}" for line in lines)


def _per_seed(runs) -> pd.DataFrame:
    rows = [
        {"category": category, "metric": metric, "seed": run.record["seed"], "value": facts["metrics"][metric]}
        for run in runs.runs
        for category, facts in run.record["per_category"].items()
        for metric in (*SHOWN, FLOOR)
        if metric in facts["metrics"]
    ]
    return pd.DataFrame(rows)


def _table(per_seed: pd.DataFrame) -> str:
    """A row per category and metric, a column per seed, and how far the seeds are apart."""
    shown = per_seed[per_seed.metric.isin(SHOWN)]
    rows = []
    for (category, metric), group in shown.groupby(["category", "metric"], sort=False):
        row = {"category": category, "metric": f"{label(metric)} [%]"}
        row |= {f"seed {seed}": printing.number(value) for seed, value in zip(group.seed, group.value, strict=True)}
        if shown.seed.nunique() > 1:
            row["apart [points]"] = printing.number(np.ptp(group.value))
        rows.append(row)
    return pd.DataFrame(rows).fillna(printing.DASH).to_markdown(index=False, disable_numparse=True)


def _category(runs, per_seed: pd.DataFrame, category: str) -> list[str]:
    """The sentences on one category: floor, brightness, seeds."""
    own = per_seed[per_seed.category == category]
    return [*_floor(runs, own, category), *_brightness(runs, category), *_seeds(own, category)]


def _floor(runs, own: pd.DataFrame, category: str) -> list[str]:
    floor, score = (own.value[own.metric == metric] for metric in (FLOOR, "image_auroc"))
    if not len(floor) or not len(score):
        return []
    record = runs.runs[0].record
    cell = measured.cell(runs, record["method"], record["dataset"], category, "image_auroc") or {}
    low = cell.get("low", np.nan)
    low = score.min() if np.isnan(low) else low
    mean, floor = score.mean(), floor.iloc[0]
    said = f"**{category}**: ranking the images by mean brightness alone gives an AUROC of {printing.number(floor)} %"
    if floor >= mean:
        return [f"**Warning.** {said}; the score, {printing.number(mean)} %, is no better. It proves nothing here."]
    if floor >= low:
        return [f"**Warning.** {said}; this lies in the interval of the score, {printing.number(mean)} %."]
    return [f"{said}; the score, {printing.number(mean)} %, is above this floor with its whole interval."]


def _brightness(runs, category: str) -> list[str]:
    """How far the score follows the brightness of the test images, if the runs know it."""
    found = {}
    for run in runs.runs:
        of = run.scores[run.scores.category == category]
        if len(of) > 2 and GREY in of and of[GREY].notna().all() and of[GREY].nunique() > 1 < of.score.nunique():
            found[run.record["seed"]] = float(spearmanr(of[GREY], of.score).statistic)
    strong = {seed: rho for seed, rho in found.items() if abs(rho) >= FOLLOWS}
    if not strong:
        return []
    told = ", ".join(f"{rho:+.2f} (seed {seed})" for seed, rho in strong.items())
    darker = {rho < 0 for rho in strong.values()}
    which = "darker images score higher" if darker == {True} else "brighter images score higher"
    which = "in a direction that changes with the seed" if len(darker) == 2 else which
    return [
        f"**Warning.** **{category}**: the score follows the brightness of the whole image, {which}: rank correlation "
        f"{told}."
    ]


def _seeds(own: pd.DataFrame, category: str) -> list[str]:
    count = own.seed.nunique()
    if count == 1:
        return [f"**{category}**: one seed. How much of each number is the luck of training, this run cannot tell."]
    apart = {}
    for metric in SHOWN:
        values = own.value[own.metric == metric]
        if len(values) and np.ptp(values) > APART:
            low, high = printing.number(values.min()), printing.number(values.max())
            apart[metric] = f"{label(metric)} {printing.number(np.ptp(values))} points ({low} to {high} %)"
    if not apart:
        most = max(np.ptp(own.value[own.metric == m]) for m in SHOWN if (own.metric == m).any())
        return [f"**{category}**: the {count} seeds differ by {printing.number(most)} points at most, in any metric."]
    return [
        f"**Warning.** **{category}**: the {count} seeds are more than {100 * APART:.0f} points apart: "
        f"{'; '.join(apart.values())}. A single run says little; quote all of them."
    ]


def _against(per_seed: pd.DataFrame, rivals: pd.DataFrame) -> list[str]:
    """For each category and metric the rival with the highest mean over the seeds, and in how many seeds we lead."""
    lines = []
    for (category, metric), group in rivals.groupby(["category", "metric"], sort=False):
        strongest = group.groupby("rival", sort=False).value.mean().idxmax()
        rows = group[group.rival == strongest].sort_values("seed")
        if "ours" not in rows:
            name = MEASURED_AS.get(metric, metric)
            known = per_seed[(per_seed.category == category) & (per_seed.metric == name)].set_index("seed").value
            rows = rows.assign(ours=[known.get(seed, np.nan) for seed in rows.seed])
        lead = (rows.ours - rows.value).dropna()
        if not len(lead):
            continue
        ahead, count = int((lead > 0).sum()), len(lead)
        place = f"ahead in {ahead or 'none'} of {count} seeds"
        if count == 1:
            place = f"{'ahead' if ahead else 'not ahead'} in its one seed"
        mine, theirs = printing.number(rows.ours.mean()), printing.number(rows.value.mean())
        lines.append(
            f"**{category}, {label(metric)}**: ours {mine} %, strongest rival ({strongest}) {theirs} %: "
            f"{100 * lead.mean():+.1f} points{' on average' if count > 1 else ''}, {place}."
        )
    return lines
