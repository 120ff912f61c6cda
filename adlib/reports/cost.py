"""What systems cost: parameters, multiply-adds, training seconds, memory, and speed, as far as a run can tell.

Speed needs what was learnt only where its size matters: banks, galleries and statistics. A system that learns by steps
alone is measured without its weights where a copy of a run has none.
"""

import pandas as pd
import torch

from adlib import data, models, speed
from adlib.common.errors import UserError
from adlib.models.base import Detector
from adlib.reports.comparison import Contender, place_of
from adlib.runs import proof


def gmac(detector) -> float:
    """1e9 multiply-adds of `embed` and `score` on one input, as torch counts convolutions and products of matrices.

    NaN where the score takes gradients (MKD), which torch's counter cannot follow.
    """
    from torch.utils.flop_counter import FlopCounterMode

    side = detector.config.image_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        try:
            detector.eval().score(detector.embed(torch.rand(1, 3, side, side)))
        except RuntimeError:
            return float("nan")
    return counter.get_total_flops() / 2e9


def detector_of(one: Contender) -> Detector | None:
    """A trained detector; None where all runs are copies without weights and the size of what was learnt matters, or
    the pretrained network is not at hand.
    """
    whole = [run for run in one.runs if proof.WEIGHTS in run.record["files"]]
    kind, config = models.get(one.method)
    try:
        if whole:
            return whole[0].detector()
        detector = kind(config.from_dict(one.record["config"])).eval()
    except UserError:
        return None
    return None if detector.fits else detector


def costs(contenders: list[Contender]) -> pd.DataFrame:
    """A row per system: parameters (frozen ones included), trained ones, multiply-adds, seconds, memory.

    Multiply-adds are NaN where they cannot be counted. Seconds (the frozen network's pass over all pictures, steps,
    statistics) and memory are means over seeds as the runs recorded them, on whatever machine that was; memory is the
    largest of the process so far, so runs made one after another in one process share it.
    """
    rows = []
    for one in contenders:
        detector, records = detector_of(one), [run.record for run in one.runs]
        mean = lambda value, records=records: sum(map(value, records)) / len(records)
        rows.append(
            {
                "system": one.name,
                "parameters [million]": one.record["parameters"] / 1e6,
                "trained [million]": one.record["trainable_parameters"] / 1e6,
                "multiply-adds [billion]": float("nan") if detector is None else gmac(detector),
                "features [s]": mean(lambda r: r["seconds"].get("embed", 0)),
                "training [s]": mean(lambda r: r["seconds"].get("train", 0)),
                "statistics [s]": mean(lambda r: r["seconds"].get("fit", 0)),
                "process [GB]": mean(lambda r: (r["machine"]["peak_host_bytes"] or float("nan")) / 1e9),
                "GPU [GB]": mean(lambda r: (r["machine"]["peak_device_bytes"] or float("nan")) / 1e9),
            }
        )
    table = pd.DataFrame(rows)
    table = table.dropna(axis=1, how="all")  # no GPU
    table.attrs["plain"] = list(table.columns[1:])
    return table


def speeds(contenders: list[Contender], device: str = "auto", seconds: float = 0.3) -> tuple[pd.DataFrame, list[str]]:
    """Rows of `speed.speed` of every system, with `system` and `image_auroc`, low, high; and the names of those that
    could not be measured. All in one process, on test pictures of the category.
    """
    parts, gaps = [], []
    for one in contenders:
        detector, auroc = detector_of(one), one.numbers.loc["image_auroc"]
        try:
            table = data.load(*place_of(one.record, one.category))
        except UserError:
            detector = None  # no pictures to time it on
        if detector is None:
            gaps.append(one.name)
            continue
        measured = speed.speed(detector, table.path[table.split == "test"].tolist(), device, seconds=seconds)
        facts = {"system": one.name, "image_auroc": auroc["mean"], "low": auroc["low"], "high": auroc["high"]}
        parts.append(measured.assign(**facts))
    out = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    out.attrs = (parts[0].attrs if parts else {}) | {"plain": ["batch", "median_ms", "p10_ms", "p90_ms", "fps"]}
    return out, gaps
