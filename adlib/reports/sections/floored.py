"""A system beside what needs no model: its numbers next to the floors, whether it beats them, and what a run shows."""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from adlib.metrics.names import SHOWN, label
from adlib.reports import printing, systems, verdict
from adlib.reports.sections.shows import FOLLOWS, GREY

PIXEL = SHOWN[1:]  # metrics of maps
GUESSING = 0.5  # image AUROC of random scores
FELL = 0.1  # a loss that fell by less than this share hardly fell


def beside_floors(runs, floors: dict[str, pd.DataFrame]) -> str:
    """Markdown: every seed's numbers above the floors', whether the score beats them, and if not, what the runs show.

    runs: of one system. floors: {category: what `adlib.reports.floors.floors` returns}. To beat a floor, the whole 95 %
    interval of the image AUROC must lie above it.
    """
    lines = [_table(runs, floors), ""]
    for category, floor in floors.items():
        lines += [line if line.startswith("  ") else f"- {line}" for line in _judged(runs, category, floor)]
    return "\n".join(lines)


def _table(runs, floors: dict[str, pd.DataFrame]) -> str:
    rows = []
    for category, floor in floors.items():
        for run in runs:
            if category in run.record["per_category"]:
                name = f"**{systems.name_of(run.record['method'])}**, seed {run.record['seed']}"
                rows.append(_row(category, name, run.record["per_category"][category]["metrics"]))
        rows += [_row(category, name, values) for name, values in floor.iterrows()]
        rows.append(_row(category, "guessing", {"image_auroc": GUESSING}))
    table = pd.DataFrame(rows).dropna(axis=1, how="all")
    text = table.map(lambda value: value if isinstance(value, str) else printing.number(value))
    return text.to_markdown(index=False, disable_numparse=True)


def _row(category: str, name: str, values) -> dict:
    return {"category": category, "": name} | {f"{label(m)} [%]": values.get(m, np.nan) for m in SHOWN}


def _judged(runs, category: str, floor: pd.DataFrame) -> list[str]:
    """Sentences on one category: the image score, the map, and reasons where the image score does not beat a floor."""
    table = runs.metrics[runs.metrics.category == category].set_index("metric")
    if "image_auroc" not in table.index or np.isnan(table.loc["image_auroc", "low"]):
        return [f"**{category}**: no image AUROC with an interval, so nothing is said about the floors."]
    score = table.loc["image_auroc"]
    rivals = floor.image_auroc.dropna().to_dict() | {"guessing": GUESSING}
    beaten = [name for name, value in rivals.items() if score.low > value]
    others = {name: value for name, value in rivals.items() if name not in beaten}
    mean, low, high = (printing.number(score[k]) for k in ("mean", "low", "high"))
    said = f"**{category}**: image AUROC {mean} % [{low}, {high}], over {score.n_images} test images. "
    if not others:
        said += f"The whole interval lies above {_listed(rivals)}."
        return [said, *_map(table, floor)]
    lies = f"lies wholly above {' and '.join(beaten)}, but not" if beaten else "does not lie"
    said += f"**Warning.** Its interval {lies} wholly above {_listed(others)}."
    reasons = _reasons(runs, category, score, max(rivals.values()))
    return [said, *_map(table, floor), "What the run shows:", *(f"  - {line}" for line in reasons)]


def _listed(values: dict[str, float]) -> str:
    """ "mean grey (53.7 %) and guessing (50.0 %)"."""
    words = [f"{name} ({printing.number(value)} %)" for name, value in values.items()]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _map(table: pd.DataFrame, floor: pd.DataFrame) -> list[str]:
    """Whether the map beats the mean picture's, metric by metric, with its whole interval."""
    words: dict[bool, list[str]] = {True: [], False: []}
    for metric in PIXEL:
        if metric not in table.index or metric not in floor:
            continue
        ours, best = table.loc[metric], floor[metric].max()
        if np.isnan(ours["low"]) or np.isnan(best):
            continue
        mean, low, high, other = (printing.number(value) for value in (ours["mean"], ours["low"], ours["high"], best))
        words[bool(ours["low"] > best)].append(f"{label(metric)} {mean} % [{low}, {high}] against {other} %")
    parts = [f"beats the mean picture's in {'; '.join(words[True])}"] if words[True] else []
    parts += [f"**does not beat** it in {'; '.join(words[False])}"] if words[False] else []
    return [f"Its map {', and '.join(parts)}."] if parts else []


def _reasons(runs, category: str, score, highest: float) -> list[str]:
    """What the runs themselves show that may be why the score does not beat the highest floor."""
    record = runs.runs[0].record
    lines = []
    if score.high < GUESSING:
        lines.append("Anomalous images score *lower* than normal ones: the score measures something else than defects.")
    lines += [line for run in runs for line in (_brightness(run, category), _loss(run)) if line]
    shortened = verdict.reduced(record)
    if shortened:
        lines.append(f"The setting is not the published one: {'; '.join(shortened)}.")
    if score["mean"] > highest:
        width = 100 * (score.high - score.low)
        lines.append(
            f"The score itself is above every floor, but {score.n_images} test images leave an interval of {width:.0f} "
            "points."
        )
    return lines


def _brightness(run, category: str) -> str:
    tests = run.scores[run.scores.category == category]
    if tests[GREY].isna().any() or tests[GREY].nunique() < 2 or tests.score.nunique() < 2:
        return ""
    rho = float(spearmanr(tests[GREY], tests.score).statistic)
    follows = "follows brightness" if abs(rho) >= FOLLOWS else "follows brightness little"
    return f"Seed {run.record['seed']}: the score {follows} (rank correlation {rho:+.2f})."


def _loss(run) -> str:
    """How far the loss fell from the first epoch to the last, and in how many steps."""
    history = run.history
    if "total" not in history or history.total.notna().sum() < 2:
        return ""
    first, last = history.total.dropna().iloc[[0, -1]]
    config = run.record["config"]
    fitted = sum(facts["counts"]["fit"] for facts in run.record["per_category"].values())
    steps = config.get("steps") or config["epochs"] * -(-fitted // config["batch_size"])
    fell = "hardly fell" if first - last < FELL * abs(first) else "fell"
    return (
        f"Seed {run.record['seed']}: the loss {fell}, from {first:.3g} to {last:.3g} (means of the first and the last "
        f"epoch), in {steps} steps."
    )
