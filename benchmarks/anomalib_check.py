"""adlib beside an independent implementation, anomalib: the same numbers, and at what speed and memory?

    make cross-check                                              # its own environment, then MVTec AD's bottle
    .venv-anomalib/bin/python benchmarks/anomalib_check.py --dataset mtd --category all --train 100 --test 195

anomalib is no dependency of adlib: `make cross-check` makes .venv-anomalib, which borrows torch and the rest from .venv
and adds anomalib with what it needs to be imported. Both sides get the same pictures (the project's cache, squashed to
--size), the same pretrained weights (resnet18.tv_in1k, from ADLIB_WEIGHTS), the same split, and take turns.

PaDiM has the same random channels on both sides. anomalib adds 1e-5 to the covariances once more and mirrors maps
without their edge, so its maps differ a little; with that summand on our side the distances must agree. PatchCore's
coresets start at random places in other projections, so AUROCs agree within their intervals; with one bank on both
sides the scores must agree. Its maps need not: anomalib enlarges them by repeating, adlib bilinearly. CS-Flow and DRAEM
take STEPS steps here, then anomalib's networks get the weights; CS-Flow reads 304 channels (anomalib's flow knows no
other number) of the embedded EfficientNet-Lite0 on the same pictures. Narrow networks by default, for a CPU.

Speed: network only, from the tensor on the device to score and map. Steps: on one batch, whose damage (DRAEM) or
features (CS-Flow) are made beforehand. Memory: growth of a new process' largest resident set, from before the model to
after fitting and one batch of scores; on a GPU, the allocator's peak. ratio: adlib / anomalib.
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from anomalib_sides import AT_ONCE, STEP_BATCH, STEPS, SYSTEMS, Data, Side, anomalib, copy_draem, copy_flow
from torch import Tensor
from turns import FOLDER, alternate, write

from adlib import data as datasets
from adlib import images, losses
from adlib.common.seeds import pick_device, reproducible_cuda
from adlib.metrics import bootstrap_interval, image_auroc, paired_interval, pixel_auroc
from adlib.models import draem, padim, patchcore
from adlib.speed import measure

BATCHES = (1, 16)
BORDER = 17  # pixels that the smoothing reaches, and one more
FAILS, OUTSIDE = "NOT", "OUTSIDE"  # verdicts that fail the check
MAPS = {  # why maps may differ
    "PaDiM": "anomalib mirrors maps without their edge",
    "PatchCore": "two coresets, from other random starts; anomalib enlarges maps by repeating, adlib bilinearly",
}


def main() -> int:
    args = parsed()
    device = pick_device(args.device)
    if device.startswith("cuda"):
        reproducible_cuda()  # as in a run: no TF32
    load = os.getloadavg()[0]
    table = datasets.load(args.dataset, args.category)
    pictures, geometry = images.cached(table, images.Geometry(args.size)), images.Geometry(args.size)
    train = chosen((table.split == "train") & (table.label == 0), args.train)
    test = chosen(table.split == "test", args.test)
    data = Data(np.array(pictures[train]), device, args)
    subset = table.iloc[test]
    checked = Test(pictures[test], subset.label.to_numpy(), images.masks(subset, geometry)[0])
    name = f"{table.attrs['dataset']}/{table.attrs['category']}"
    conditions = (
        f"{name}, {len(train)} of the training images and {len(test)} of the test images, evenly spaced "
        f"({int(subset.label.sum())} anomalous), {args.size} px; {described(args, device, load)} {args.note}"
    )
    stem, rows = f"anomalib_{name.replace('/', '_')}_{device.split(':')[0]}", []
    for system in args.systems:
        torch.set_num_threads(args.threads[0])
        sides = {library: make(data) for library, make in SYSTEMS[system].items()}
        rows += AGREEMENTS[system](data, sides, checked)
        if not args.agreement_only:
            rows += [row for threads in args.threads for row in timings(system, sides, data, threads)]
            rows += memory(system, data)
        write(pd.DataFrame(rows), "adlib beside anomalib", conditions.rstrip(), args.out, stem)
    failed = [row for row in rows if row["verdict"].startswith((FAILS, OUTSIDE))]
    for row in failed:
        print(f"{row['system']}: {row['quantity']}: {row['verdict']}")
    return int(bool(failed))


def parsed() -> argparse.Namespace:
    number = lambda text: None if text == "all" else int(text)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mvtec_ad")
    parser.add_argument("--category", default="bottle")
    parser.add_argument("--train", type=number, default=60, help="normal training images, evenly spaced, or all")
    parser.add_argument("--test", type=number, default=None, help="test images, evenly spaced, or all (default)")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--device", default="auto")
    every = os.cpu_count() or 1
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, every}), help="1 and all by default")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--channels", type=int, default=100, help="d of PaDiM")
    parser.add_argument("--coreset", type=float, default=0.01, help="share of the vectors in PatchCore's bank")
    parser.add_argument("--hidden", type=int, default=64, help="width of CS-Flow's networks; the paper's is 1024")
    parser.add_argument("--draem-width", type=int, default=16, help="of the reconstructive one; the paper's is 128")
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring each speed, in each turn")
    parser.add_argument("--turns", type=int, default=3, help="of each side, between which the other one is measured")
    parser.add_argument("--agreement-only", action="store_true", help="no speed and memory: the machine is busy")
    parser.add_argument("--note", default="", help="sentence on the conditions, e.g. what else ran")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder that receives anomalib_*.md and .csv")
    return parser.parse_args()


def described(args: argparse.Namespace, device: str, load: float) -> str:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    return (
        f"PaDiM with {args.channels} channels, PatchCore with a coreset of {args.coreset:g}, CS-Flow with hidden width "
        f"{args.hidden}, DRAEM with widths {args.draem_width} and {args.draem_width // 2}; anomalib "
        f"{version('anomalib')}, {name}, torch {torch.__version__}, load average {load:.1f} before. "
        "ratio: adlib / anomalib. difference: adlib - anomalib of AUROCs, else the largest one of all values. "
        "Written by `python benchmarks/anomalib_check.py`."
    )


def chosen(among, count: int | None) -> np.ndarray:
    """Row numbers where `among` [N] holds: all of them, or `count` evenly spaced ones with the first and the last."""
    rows = np.flatnonzero(among)
    if count is None or count >= len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


# Rows of the table


def compared(system: str, quantity: str, ours: float, theirs: float, more_is_better: bool) -> dict:
    """A row of two costs or speeds; the verdict says where adlib is worse."""
    ratio = ours / theirs
    worse = ratio < 1 if more_is_better else ratio > 1
    words = ("slower" if quantity.split()[-1] != "MB" else "more memory") if worse else ""
    return _row(system, quantity, ours, theirs, ratio=ratio, verdict=words)


def equal(system: str, quantity: str, ours: Tensor, theirs: Tensor, tolerance: float, why: str = "") -> dict:
    """A row of tensors that should be equal: the largest number of each, the largest difference, relative to it.

    why: the known reason of a difference; a difference without one is a failure.
    """
    ours, theirs = ours.double().cpu(), theirs.double().cpu()
    largest, difference = float(theirs.abs().max()), float((ours - theirs).abs().max())
    verdict = f"equal to {tolerance:g} of the largest"
    if difference > tolerance * largest:
        verdict = f"differs: {why}" if why else f"{FAILS} {verdict}"
    return _row(system, quantity, float(ours.abs().max()), largest, difference=difference, verdict=verdict)


def _row(system: str, quantity: str, ours: float, theirs: float, **more) -> dict:
    row = {"system": system, "quantity": quantity, "adlib": ours, "anomalib": theirs}
    return row | {"ratio": np.nan, "difference": np.nan, "verdict": ""} | more


def counted(system: str, quantity: str, ours: int, theirs: int) -> dict:
    """A row of two whole numbers."""
    return _row(system, quantity, ours, theirs, verdict="equal" if ours == theirs else f"{FAILS} equal")


def within(system: str, quantity: str, labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> dict:
    """A row of image AUROCs: is anomalib's in the interval of ours, and is 0 in that of the difference?"""
    values = [image_auroc(labels, scores) for scores in (ours, theirs)]
    low, high = bootstrap_interval(labels, ours)
    below, above = paired_interval(labels, ours, theirs)
    inside = "inside" if low <= values[1] <= high else OUTSIDE
    same = "0 in" if below <= 0 <= above else "0 NOT in"
    verdict = f"{inside} [{low:.4f}, {high:.4f}]; {same} [{below:.4f}, {above:.4f}]"
    return _row(system, quantity, *values, difference=values[0] - values[1], verdict=verdict)


# Do they agree?


class Test:
    """Test pictures uint8 [N,3,S,S], labels [N], masks [N,S,S]."""

    def __init__(self, pictures: np.ndarray, labels: np.ndarray, masks: np.ndarray):
        self.pictures, self.labels, self.masks = pictures, labels, masks

    def scored(self, side: Side, device: str) -> tuple[np.ndarray, Tensor]:
        """Image scores [N] and maps [N,S,S]."""
        parts = [
            [x.cpu() for x in side.score(images.to_float(self.pictures[i : i + AT_ONCE], device))]
            for i in range(0, len(self.pictures), AT_ONCE)
        ]
        scores, maps = (torch.cat(x) for x in zip(*parts, strict=True))
        return scores.numpy(), maps

    def rows(self, system: str, sides: dict[str, Side], device: str) -> list[dict]:
        """AUROC of images and of pixels, and differences of the maps."""
        (ours, maps), (theirs, other_maps) = (self.scored(side, device) for side in sides.values())
        pixels = [pixel_auroc(self.masks, x.numpy()) for x in (maps, other_maps)]
        middle = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
        beyond = f"map, {BORDER} pixels from the border on"
        return [
            within(system, "image AUROC", self.labels, ours, theirs),
            _row(system, "pixel AUROC", *pixels, difference=pixels[0] - pixels[1]),
            equal(system, "map", maps, other_maps, 1e-2, MAPS[system]),
            equal(system, beyond, maps[middle], other_maps[middle], 1e-2, MAPS[system]),
        ]


@torch.inference_mode()
def padim_agrees(data: Data, sides: dict[str, Side], test: Test) -> list[dict]:
    ours, theirs = (side.model for side in sides.values())
    theirs.idx = ours.drawn.clone()
    for side in sides.values():
        side.fit()
    rows = test.rows("PaDiM", sides, data.device)
    maps = ours.embed(images.to_float(test.pictures[:AT_ONCE], data.device))
    again = ours.factor @ ours.factor.mT
    again.diagonal(dim1=1, dim2=2).add_(1e-5)
    gaussian = theirs.gaussian
    stored = [gaussian.mean, gaussian.inv_covariance]
    their_distances = theirs.anomaly_map_generator.compute_distance(maps, stored).flatten(1)
    for quantity, factor, tolerance in (
        ("distances on the grid", ours.factor, 1e-3),
        ("distances, 1e-5 added to ours", torch.linalg.cholesky(again), 1e-4),
    ):
        our_distances = padim.distance(ours.rows(maps), ours.mean, factor)
        why = "anomalib adds 1e-5 to the covariances once more" if factor is ours.factor else ""
        rows.append(equal("PaDiM", quantity, our_distances, their_distances, tolerance, why))
    return rows


@torch.inference_mode()
def patchcore_agrees(data: Data, sides: dict[str, Side], test: Test) -> list[dict]:
    ours, theirs = (side.model for side in sides.values())
    for side in sides.values():
        side.fit()
    rows = test.rows("PatchCore", sides, data.device)
    rows.append(counted("PatchCore", "vectors in the bank", len(ours.bank), len(theirs.memory_bank)))
    own_bank, theirs.memory_bank = theirs.memory_bank, ours.bank.clone()
    (our_scores, _), (their_scores, _) = (test.scored(side, data.device) for side in sides.values())
    rows.append(within("PatchCore", "image AUROC, one bank", test.labels, our_scores, their_scores))
    rows.append(
        equal("PatchCore", "image scores, one bank", *map(torch.from_numpy, (our_scores, their_scores)), tolerance=1e-4)
    )
    queries = patchcore.vectors(ours.embed(images.to_float(test.pictures[:AT_ONCE], data.device)))
    our_distances, their_distances = patchcore.nearest(queries, ours.bank)[0], theirs.nearest_neighbors(queries, 1)[0]
    rows.append(equal("PatchCore", "distances, one bank", our_distances[:, 0], their_distances.flatten(), 1e-4))
    theirs.memory_bank = own_bank
    return rows


def csflow_agrees(data: Data, sides: dict[str, Side], test: Test) -> list[dict]:
    """After STEPS steps here. Image by image, for anomalib adds up the log-determinants of a batch."""
    ours, theirs = (side.model for side in sides.values())
    sides["adlib"].fit()
    copy_flow(ours.flow, theirs)
    criterion, features = anomalib().CsFlowLoss(), data.features(range(AT_ONCE))
    rows = [counted("CS-Flow", "parameters", *(sum(p.numel() for p in x.parameters()) for x in (ours.flow, theirs)))]
    with torch.inference_mode():
        each = [tuple(x[i : i + 1] for x in features) for i in range(AT_ONCE)]
        pairs = [(ours.flow(x), theirs(x)) for x in each]
        for scale in range(len(features)):
            z = [torch.cat([pair[side][0][scale] for pair in pairs]) for side in (0, 1)]
            rows.append(equal("CS-Flow", f"z of scale {scale + 1}", *z, tolerance=1e-4))
        logdets = [torch.cat([pair[side][1] for pair in pairs]) for side in (0, 1)]
        rows.append(equal("CS-Flow", "log-determinant of each image", *logdets, tolerance=1e-4))
        each_loss = [ours.loss(x, None)["total"] for x in each], [criterion(*theirs(x)) for x in each]
        rows.append(equal("CS-Flow", "loss of each image", *map(torch.stack, each_loss), tolerance=1e-4))
        batch = ours.loss(features, None)["total"], criterion(*theirs(features))
        why = "anomalib adds up the log-determinants of the batch, the paper has one for each image"
        rows.append(equal("CS-Flow", f"loss of {AT_ONCE} images at once", *batch, tolerance=1e-4, why=why))
        scores = sides["adlib"].score(features)[0], sides["anomalib"].score(features)[0]
        rows.append(equal("CS-Flow", "image scores", *scores, tolerance=1e-4))
        z, _ = ours.flow(features)
        back = ours.flow.inverse(z), theirs.graph(z, rev=True)[0]
        errors = [max(float((a - b).abs().max()) for a, b in zip(x, features, strict=True)) for x in back]
        said = "" if errors[1] < 1e-3 else "anomalib's does not undo its flow; no score needs it"
        rows.append(_row("CS-Flow", "largest error of the inverse", *errors, verdict=said))
    return rows


def draem_agrees(data: Data, sides: dict[str, Side], test: Test) -> list[dict]:
    """After STEPS steps here. anomalib's second network reads the two pictures in the other order."""
    ours, theirs = (side.model for side in sides.values())
    sides["adlib"].fit()
    copy_draem(ours, theirs)
    damaged, target, mask = data.damaged
    with torch.device("meta"):
        full = draem.Draem(draem.Config()), anomalib().DraemModel()
    rows = [
        counted("DRAEM", name, *(sum(p.numel() for p in x.parameters()) for x in models))
        for name, models in (("parameters", (ours, theirs)), ("parameters of the paper's widths", full))
    ]
    with torch.inference_mode():
        repaired, logits = ours(damaged)
        other = theirs.reconstructive_subnetwork(damaged)
        rows.append(equal("DRAEM", "repaired images", repaired, other, 1e-5))
        other_logits = theirs.discriminative_subnetwork(torch.cat([other, damaged], 1))
        rows.append(equal("DRAEM", "logits", logits, other_logits, 1e-5))
        return rows + draem_losses(ours.terms(repaired, logits, target, mask), repaired, logits, target, mask)


def draem_losses(
    terms: dict[str, Tensor], repaired: Tensor, logits: Tensor, target: Tensor, mask: Tensor
) -> list[dict]:
    """The terms of both losses. anomalib's SSIM mirrors the border and its focal loss gives normal pixels no weight
    (kornia's alpha = 1 weights the background by 1 - alpha) and divides by both classes: what is left of ours then is
    compared, too.
    """
    criterion, normal = anomalib().DraemLoss(), mask == 0
    focal = criterion.focal_loss(logits, mask.squeeze(1).long())
    ssim = 2 * criterion.ssim_loss(repaired, target)
    probabilities = logits.softmax(1).masked_fill(normal, 0)
    probabilities[:, :1].masked_fill_(normal, 1)  # right and sure: a normal pixel costs nothing
    return [
        equal("DRAEM", "loss, squares", terms["l2"], criterion.l2_loss(repaired, target), 1e-5),
        equal("DRAEM", "loss, SSIM", terms["ssim"], ssim, 1e-5, "anomalib mirrors the border, others pad with zeros"),
        equal("DRAEM", "loss, SSIM, border mirrored", losses.ssim(repaired, target, padding="reflect"), ssim, 1e-5),
        equal("DRAEM", "loss, focal", terms["focal"], focal, 1e-3, FOCAL),
        equal("DRAEM", "loss, focal, half of the anomalous", losses.focal(probabilities, mask) / 2, focal, 1e-3),
    ]


FOCAL = "anomalib's gives normal pixels no weight and divides by both classes"

AGREEMENTS = {
    "PaDiM": padim_agrees,
    "PatchCore": patchcore_agrees,
    "CS-Flow": csflow_agrees,
    "DRAEM": draem_agrees,
}


# At what cost?


def timings(system: str, sides: dict[str, Side], data: Data, threads: int) -> list[dict]:
    """Images per second of scoring, seconds of fitting; the sides take turns."""
    torch.set_num_threads(threads)
    with_threads = f"{threads} thread{'s' if threads > 1 else ''}"
    ours, theirs = sides.values()
    learns = system in ("CS-Flow", "DRAEM")
    size = STEP_BATCH if system == "DRAEM" else AT_ONCE
    work = f"{STEPS} steps of {size} images" if learns else f"fit to {len(data.train)} images"
    seconds = alternate(ours.fit, theirs.fit, device=data.device, rounds=1)
    rows = [compared(system, f"{work}, {with_threads}, s", *seconds, more_is_better=False)]
    for batch in BATCHES:
        inputs = ours.inputs(batch)
        taken = {side: [] for side in ("ours", "theirs")}
        for _ in range(data.options.turns):
            for times, side in zip(taken.values(), (ours, theirs), strict=True):
                call = lambda side=side: side.score(inputs)  # noqa: B023 (called within this round)
                times.append(measure(call, data.device, data.options.seconds))
        fps = [1e3 * batch / np.median(np.concatenate(times)) for times in taken.values()]
        rows.append(compared(system, f"batch of {batch}, {with_threads}, images/s", *fps, more_is_better=True))
    return rows


def memory(system: str, data: Data) -> list[dict]:
    """Peak of fitting and scoring one batch, each side in a new process."""
    peaks = []
    for library in SYSTEMS[system]:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            peaks.append(pool.submit(peak, system, library, data).result())
    return [compared(system, "peak memory, MB", *peaks, more_is_better=False)]


def peak(system: str, library: str, data: Data) -> float:
    """MB that building, fitting and scoring take, at most, above what was there before."""
    torch.set_num_threads(1)
    if library == "anomalib":
        anomalib()  # its import is no part of it
    if system == "DRAEM":
        _ = data.damaged
    if system == "CS-Flow":
        data.features(range(AT_ONCE))
    cuda = data.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else psutil.Process().memory_info().rss
    side = SYSTEMS[system][library](data)
    side.fit()
    side.score(side.inputs(AT_ONCE))
    after = torch.cuda.max_memory_allocated() if cuda else _largest_resident()
    return (after - before) / 1e6


def _largest_resident() -> int:
    """Bytes of this process' largest resident set. Not by getrusage: a new process inherits its parent's there."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    sys.exit(main())
