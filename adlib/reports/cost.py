"""What systems cost: parameters, stored numbers, multiply-adds, seconds, memory, and speed, as far as a run can tell.

Only the size of what was learnt matters here, not its values: where all runs of a system are copies without weights, it
is built anew, and its banks, galleries and statistics get random numbers in the shapes that the run's had.
"""

import json
import os

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from adlib import data, models, speed
from adlib.common.errors import UserError
from adlib.common.memory import check_memory
from adlib.common.seeds import pick_device
from adlib.embeddings import Embeddings
from adlib.models.base import Detector
from adlib.reports.comparison import Contender, place_of
from adlib.runs import proof
from adlib.runs.execution import place

FEW, MANY = 5, 25  # pictures on which statistics are collected to see which of their shapes grow, and how fast
LARGEST = 2e9  # bytes of stored numbers that a page makes anew


class Products(TorchDispatchMode):
    """Counts floating-point operations of convolutions and products of matrices, by torch's own formulas.

    torch's FlopCounterMode also follows modules, which forbids a score that takes gradients (MKD's).
    """

    flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        self.flops += formula(*args, **(kwargs or {}), out_val=out) if formula else 0
        return out


def gmac(detector) -> float:
    """1e9 multiply-adds of `embed` and `score` on one input on the CPU: convolutions and products of matrices, those of
    attention and of gradients that the score takes included; no norms, distances or triangular systems.
    """
    side = detector.config.image_size
    # fused attention is a kernel that the counter does not know
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Products() as counter:
        detector.eval().score(detector.embed(torch.rand(1, 3, side, side)))
    return counter.flops / 2e9


def stored(detector: Detector) -> dict[str, Tensor]:
    """The banks, galleries and Gaussians that `fit` fills, by name: a fitting detector's own buffers that are saved."""
    saved = detector.state_dict() if detector.fits else {}
    return {name: buffer for name, buffer in detector.named_buffers(recurse=False) if name in saved}


def detector_of(one: Contender, device: str = "cpu") -> Detector:
    """A trained detector on a device; where all runs are copies without weights, an untrained one of the same size.

    Raises UserError that says why there is none: its pretrained network is not at hand, or see `_sized`.
    """
    whole = next((run for run in one.runs if proof.WEIGHTS in run.record["files"]), None)
    if whole is not None:
        return whole.detector(device)
    kind, config = models.get(one.method)
    detector = kind(config.from_dict(one.record["config"])).eval()
    if detector.fits:
        _sized(detector, one)
    return place(detector, device).eval()


def _sized(detector: Detector, one: Contender) -> None:
    """Give an untrained detector stored numbers in the shapes that the run's had, whatever system it is.

    It is fitted on FEW and on MANY random pictures. A size that is the same both times is kept; one that grows does so
    in proportion to the pictures. This is exact for galleries; a share of all places (PatchCore's bank) that MANY
    pictures do not fill to whole rows is short by less than N / MANY rows. Raises UserError where a copy does not tell
    the number of inputs (tiles), the memory is not free, or there would be more than LARGEST bytes.
    """
    if detector.config.resize_mode == "tiles":
        raise UserError("a copy without weights does not tell how many tiles its pictures had")
    machine = one.record["machine"]
    check_memory(max(machine["peak_host_bytes"] or 0, machine["peak_device_bytes"] or 0), one.name)
    count = sum(facts["counts"]["fit"] for facts in one.record["per_category"].values())
    many, side, draw = min(count, MANY), detector.config.image_size, torch.Generator().manual_seed(0)
    with torch.no_grad():
        made = detector.embed(torch.rand(many, 3, side, side, generator=draw))
        embedded = Embeddings([[made] if isinstance(made, Tensor) else list(made)], single=isinstance(made, Tensor))
        detector.fit(embedded.subset(range(min(count, FEW))), draw)
        before = {name: buffer.shape for name, buffer in stored(detector).items()}
        detector.fit(embedded, draw)
        sizes = {name: _grown(before[name], now.shape, count / many) for name, now in stored(detector).items()}
        needed = sum(now.element_size() * sizes[name].numel() for name, now in stored(detector).items())
        if needed > LARGEST:
            raise UserError(f"what it stores takes {needed / 1e9:.1f} GB, more than this page makes anew")
        for name, now in stored(detector).items():
            if sizes[name] != now.shape:
                mean, deviation = float(now.float().mean()), float(now.float().std())
                setattr(detector, name, now.new_empty(sizes[name]).normal_(mean, deviation, generator=draw))


def _grown(few: torch.Size, many: torch.Size, factor: float) -> torch.Size:
    """The sizes on `factor` times as many pictures: those that differ between few and many grow in proportion."""
    return torch.Size(b if a == b else int(b * factor + 1e-6) for a, b in zip(few, many, strict=True))


def costs(contenders: list[Contender]) -> pd.DataFrame:
    """A row per system: what one model was trained on, parameters (frozen ones included), trained ones, stored numbers,
    multiply-adds, seconds, memory; NaN where there is no detector (`detector_of`) or a run did not record it.

    Seconds and memory are as the runs recorded them, on whatever machine that was, for all categories of the model.
    Features (the frozen network's pass over all pictures): the largest over seeds and over systems that read the same,
    since who finds them in the cache records none. Training, statistics, GPU: means over seeds. Process: the smallest
    over seeds, since a run's is the largest of its process so far, earlier runs included.
    """
    rows, read = [], []
    for one in contenders:
        try:
            detector = detector_of(one)
        except UserError:
            detector = None
        of = lambda *keys, one=one: pd.Series([_value(run.record, keys) for run in one.runs], dtype=float)
        told = len(one.record["per_category"])
        numbers = float("nan") if detector is None else sum(x.numel() for x in stored(detector).values())
        rows.append(
            {
                "system": one.name,
                "trained on": "this category" if told == 1 else f"{told} categories, one model",
                "parameters [million]": one.record["parameters"] / 1e6,
                "trained [million]": one.record["trainable_parameters"] / 1e6,
                "stored [million]": numbers / 1e6,
                "multiply-adds [billion]": float("nan") if detector is None else gmac(detector),
                "features [s]": of("seconds", "embed").max(),
                "training [s]": of("seconds", "train").fillna(0).mean(),
                "statistics [s]": of("seconds", "fit").fillna(0).mean(),
                "process, at most [GB]": of("machine", "peak_host_bytes").min() / 1e9,
                "GPU [GB]": of("machine", "peak_device_bytes").mean() / 1e9,
            }
        )
        read.append(_features(detector, one))
    table = pd.DataFrame(rows)
    table["features [s]"] = table.groupby(pd.Series(read))["features [s]"].transform("max")
    table = table.dropna(axis=1, how="all")  # no GPU
    table.attrs["plain"] = list(table.columns[2:])
    return table


def _value(record: dict, keys: tuple[str, ...]) -> float:
    """A number in a record; NaN where it is absent or null."""
    for key in keys:
        record = record.get(key)
    return float("nan") if record is None else record


def _features(detector: Detector | None, one: Contender) -> str:
    """What the cached features of a system's runs are; the system's name where there are none or nobody knows."""
    key = None if detector is None else detector.embedding_key
    if key is None:
        return one.name
    config, machine = detector.config, one.record["machine"]
    facts = [key, str(config.geometry), sorted(one.record["data"].values()), machine["device_type"], config.precision]
    return json.dumps(facts, sort_keys=True)


def speeds(
    contenders: list[Contender], device: str = "auto", seconds: float = 3.0
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows of `speed.speed` of every system, with `system` and `image_auroc`, low, high; and {name: why} of those that
    could not be measured. All in one process, on test pictures of the category.

    seconds: of each measurement at most, where 50 calls take longer; a third of it warms up. Four measurements a
    system: the default, specs/common, section 5, takes some ten minutes for twenty systems on one core. attrs: those of
    the first system, so `load` is that before the first measurement, and `cores` of this machine.
    """
    parts, gaps, device = [], {}, pick_device(device)
    for one in contenders:
        auroc = one.numbers.loc["image_auroc"]
        try:
            table = data.load(*place_of(one.record, one.category))
            detector = detector_of(one, device)
        except UserError as error:  # no pictures to time it on, or no detector
            gaps[one.name] = str(error)
            continue
        measured = speed.speed(detector, table.path[table.split == "test"].tolist(), device, seconds=seconds)
        facts = {"system": one.name, "image_auroc": auroc["mean"], "low": auroc["low"], "high": auroc["high"]}
        parts.append(measured.assign(**facts))
    out = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    out.attrs = (parts[0].attrs if parts else {}) | {"cores": os.cpu_count()}
    out.attrs["plain"] = ["batch", "median_ms", "p10_ms", "p90_ms", "fps", "calls"]
    return out, gaps


def conditions(speeds: pd.DataFrame, untimed: dict[str, str]) -> str:
    """Markdown on what `speeds` gave: how busy the machine was, a warning where that spoils the times, who is missing
    and why.
    """
    lines = [f"Not timed: **{name}**, {why}." for name, why in untimed.items()]
    if len(speeds):
        load, cores = speeds.attrs["load"], speeds.attrs["cores"]
        lines.insert(0, f"Before the first measurement {load:.1f} processes shared {cores} cores.")
        if load >= cores:
            lines[0] += " **Warning: the machine was busy, so all times are too long; repeat this on an idle one.**"
    return "\n\n".join(lines)


def milliseconds(speeds: pd.DataFrame) -> pd.DataFrame:
    """A row per system, a column per measurement: "11.2 (10.9-12.4), 50 calls", milliseconds of a call: median, 10th to
    90th percentile.
    """
    said = [f"{r.median_ms:.1f} ({r.p10_ms:.1f}-{r.p90_ms:.1f}), {r.calls} calls" for r in speeds.itertuples()]
    return speeds.assign(said=said).pivot(index="system", columns=["what", "batch"], values="said")
