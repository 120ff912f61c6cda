"""One run, from a plan to the files of its folder: prepare, train, measure, write."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save

from adlib import data, evaluation, images, models
from adlib.common.memory import check_memory
from adlib.common.seeds import reproducible_cuda, seeded, stream
from adlib.data.cautions import cautions
from adlib.embeddings import Embeddings, embeddings, joined
from adlib.metrics.names import BEST_EPOCH_METRICS, PIXEL_METRICS, best_epoch
from adlib.models.base import Detector
from adlib.runs import proof
from adlib.runs.plan import Plan
from adlib.runs.record import record
from adlib.training import Training, learnt_state, load_learnt
from adlib.views import Views

GRID = 1024  # pixels per side of the evaluation grid of tiles, at most, unless metric_size asks for more

FLOAT = 4  # bytes
AT_ONCE = 16  # pictures that are embedded or scored together
PER_PICTURE = 10  # times its own numbers: a first layer's 64 maps at half the side are five times as many, held twice
PER_WEIGHT = 4  # of what learns: the weight, its gradient, two moments


@dataclass
class CategoryData:
    """One category of a run: its sample table, what its pictures become for the network (uint8 [M,3,S,S], M = N but for
    tiles), their embeddings, and which rows of the table are what.
    """

    name: str
    table: pd.DataFrame
    views: Views
    pictures: np.ndarray
    embedded: Embeddings
    fit: np.ndarray  # rows that train
    held: np.ndarray  # normal rows held back for the threshold
    test: np.ndarray
    truth: evaluation.PixelTruth
    published_truth: evaluation.PixelTruth | None  # masks by the authors' rule, where it is another

    def embeddings_of(self, rows: np.ndarray) -> Embeddings:
        """Of all views of these rows of the table."""
        return self.embedded.subset(self.views.rows(rows))


@dataclass
class Work:
    """What a plan needs to be carried out on a device."""

    plan: Plan
    device: str
    detector: Detector
    size: int  # side of the evaluation grid, pixels
    categories: list[CategoryData]
    seconds: dict[str, float] = field(default_factory=dict)  # of each stage

    @cached_property
    def streamed(self) -> bool:
        """Whether some test set is too large for its maps to be kept at once."""
        return any(_is_large(self, category) and category.truth.usable for category in self.categories)


@dataclass
class Trained:
    """History, one row per epoch, and the best epoch on the test set (an oracle; {} where nobody looked)."""

    history: pd.DataFrame
    best: dict


@dataclass
class Measured:
    """Numbers of the last epoch: per category for run.json, the table of scores, small maps, bootstrap replicates."""

    per_category: dict[str, dict] = field(default_factory=dict)
    scores: list[pd.DataFrame] = field(default_factory=list)
    small: list[np.ndarray] = field(default_factory=list)
    replicates: dict[str, np.ndarray] = field(default_factory=dict)


def execute(
    plan: Plan,
    folder: Path,
    device: str,
    code: str,
    deadline: float = float("inf"),
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Carry out a plan, from the folder's checkpoint if there is one, and write the run's files there, run.json last.

    code: fingerprint of the code, for the record; deadline: `time.monotonic()` at which training saves and leaves;
    report: told one line per stage and, before them, "note: ..." per caution about the pictures. Raises UserError, and
    Unfinished at the deadline.
    """
    said = {c: cautions(t, plan.config.geometry) for c, t in zip(plan.categories, plan.tables, strict=True)}
    for category, sentences in said.items():
        for sentence in sentences:
            report(f"note: {plan.dataset} ({category}): {sentence}")
    report(f"{plan}: preparing pictures and embeddings")
    work = prepare(plan, device)
    report(f"{plan}: training on {device}")
    trained = train(work, folder / "checkpoint.pt", deadline)
    report(f"{plan}: measuring")
    measured = measure(work, trained)
    doubt = work.detector.doubt(trained.history)
    for category, facts in measured.per_category.items():
        facts["warnings"] = said[category] + ([doubt] if doubt else [])
    write(work, trained, measured, code, folder)
    report(f"{plan}: finished in {sum(work.seconds.values()):.0f} s")


def prepare(plan: Plan, device: str) -> Work:
    """The untrained detector on its device, pictures, embeddings, masks. A bad mask is found before any training."""
    _set_up(plan, device)
    _check_memory(plan, device)
    start = time.perf_counter()
    detector_class, _ = models.get(plan.method)
    with seeded(plan.seed, "init"):
        detector = place(detector_class(plan.config), device)
    geometry = plan.config.geometry
    pictures = [images.cached(table, geometry, views=True) for table in plan.tables]
    views = [Views.of(table, geometry) for table in plan.tables]
    decoded = time.perf_counter()
    work = Work(plan, device, detector, _grid_side(plan, views), [])
    for name, table, own, of_table in zip(plan.categories, plan.tables, pictures, views, strict=True):
        embedded = embeddings(detector, own, images.cache_key(table, geometry), device)
        work.categories.append(_category_data(work, name, table, of_table, own, embedded))
    work.seconds |= {"decode": decoded - start, "embed": time.perf_counter() - decoded}
    return work


def _check_memory(plan: Plan, device: str) -> None:
    """UserError where not even the least of what the plan will hold at once is free: a batch, and what learns."""
    config = plan.config
    with seeded(plan.seed, "init"), torch.device("meta"):  # shapes without numbers
        detector = models.get(plan.method)[0](config)
    learnt = sum(p.numel() for p in detector.parameters() if p.requires_grad)
    pictures = max(config.batch_size, AT_ONCE) * 3 * config.image_size**2
    needed = FLOAT * (PER_PICTURE * pictures + PER_WEIGHT * learnt)
    check_memory(needed, f"{plan} with batch_size {config.batch_size} at image_size {config.image_size}", device)


def _grid_side(plan: Plan, views: list[Views]) -> int:
    """Side of the evaluation grid: metric_size, else that of the network's input; of tiles the longest side of the
    resized pictures, but no more than GRID.
    """
    config = plan.config
    if config.metric_size or config.resize_mode != "tiles":
        return config.metric_size or config.image_size
    return min(max(of_table.longest() for of_table in views), GRID)


def place(detector: Detector, device: str) -> Detector:
    """On the device in the layout that suits it: channels last on a GPU, where convolutions want it, and for systems
    that measured it to be faster on the CPU.
    """
    detector = detector.to(device)
    if detector.channels_last or torch.device(device).type == "cuda":
        detector = detector.to(memory_format=torch.channels_last)
    return detector


def _set_up(plan: Plan, device: str) -> None:
    precision, cuda = plan.config.precision, torch.device(device).type == "cuda"
    if cuda:
        reproducible_cuda(tf32=precision == "tf32")
        torch.cuda.reset_peak_memory_stats(device)
    elif precision == "bfloat16" and not torch.cpu._is_avx512_bf16_supported():
        print("this CPU has no bfloat16 instructions (avx512_bf16): training will be slow", file=sys.stderr)


def _category_data(
    work: Work, name: str, table: pd.DataFrame, views: Views, pictures: np.ndarray, embedded: Embeddings
) -> CategoryData:
    config = work.plan.config
    fit, held = data.holdback(table, config.holdback)
    test = np.flatnonzero(table.split == "test")
    grid, tested = config.geometry.at(work.size), views.subset(test)
    truth = evaluation.PixelTruth(table.iloc[test], grid, config.mask_rule, tested)
    rule, other = work.detector.published_mask_rule, None
    if rule not in (None, config.mask_rule):
        other = evaluation.PixelTruth(table.iloc[test], grid, rule, tested)
    rows = fit.index.to_numpy(), held.index.to_numpy(), test
    return CategoryData(name, table, views, pictures, embedded, *rows, truth, other)


def train(work: Work, checkpoint: Path | None, deadline: float = float("inf")) -> Trained:
    """Train on the normal rows of all categories. With `eval_every`, the test set is looked at for the oracle row."""
    parts = [category.embeddings_of(category.fit) for category in work.categories]
    looked = {"seconds": 0.0}

    def watch(epoch: int) -> dict:
        start = time.perf_counter()
        value = float(np.mean([_image_auroc(work, category) for category in work.categories]))
        training.keep_best(epoch, value)
        looked["seconds"] += time.perf_counter() - start
        return {"image_auroc (oracle)": value}

    if work.plan.texture_bank is not None:
        work.detector.equip(work.plan.texture_bank, work.device)
    own = (parts[0] if len(parts) == 1 else joined(parts)).resident(work.device)
    training = Training(
        work.detector, own, work.plan.seed, work.device, checkpoint, watch=watch, deadline=deadline
    )  # fmt: skip
    with seeded(work.plan.seed, "train"):
        history = training.run()
    in_epochs = float(history["seconds"].sum())
    work.seconds |= {"train": in_epochs, "watch": looked["seconds"]}
    if work.detector.fits:
        work.seconds["fit"] = training.fit_seconds
    return Trained(history, training.best)


def _image_auroc(work: Work, category: CategoryData) -> float:
    """Image AUROC on the test set of the present state: an oracle, recorded beside the last epoch."""
    tested, views = category.embeddings_of(category.test), category.views.subset(category.test)
    scored = evaluation.score_all(work.detector, tested, evaluation.SMALL, work.device, views=views)
    return evaluation.image_metrics(_labels(category), scored.scores, 0.0)["image_auroc"]


def _labels(category: CategoryData) -> np.ndarray:
    return category.table.label.to_numpy()[category.test]


def measure(work: Work, trained: Trained) -> Measured:
    """Metrics per category of the last epoch; with `eval_every`, those of the best test epoch beside them."""
    start, measured = time.perf_counter(), Measured()
    for category in work.categories:
        facts, scored, replicates = _measure_category(work, category)
        measured.per_category[category.name] = facts
        measured.scores.append(_scores_table(category, scored, facts["threshold"]["tau"]))
        measured.small += [] if scored.small is None else [scored.small]
        measured.replicates |= {f"{category.name}/{name}": values for name, values in replicates.items()}
    if trained.best:
        last = learnt_state(work.detector)
        load_learnt(work.detector, trained.best["state"])
        for category in work.categories:
            oracle = _measure_category(work, category, replicates=False)[0]["metrics"]
            known = {best_epoch(name): oracle[name] for name in BEST_EPOCH_METRICS if name in oracle}
            measured.per_category[category.name]["metrics"] |= known
        load_learnt(work.detector, last)
    work.seconds["measure"] = time.perf_counter() - start
    return measured


def _is_large(work: Work, category: CategoryData) -> bool:
    return len(category.test) * work.size**2 > evaluation.IN_MEMORY


def _measure_category(
    work: Work, category: CategoryData, replicates: bool = True
) -> tuple[dict, evaluation.Scored, dict[str, np.ndarray]]:
    """Metrics and facts, scores with maps, and bootstrap replicates of the pixel metrics of one category."""
    normal_rows, source = (category.held, "holdback") if len(category.held) else (category.fit, "train (optimistic)")
    embedded, views = category.embeddings_of(normal_rows), category.views.subset(normal_rows)
    normal = evaluation.score_all(work.detector, embedded, work.size, work.device, _dropped, views=views)
    threshold = evaluation.thresholds(normal, source)
    tested, truth, large = category.embeddings_of(category.test), category.truth, _is_large(work, category)
    views = category.views.subset(category.test)
    pixel, draws = {}, {}
    if large and truth.usable:
        scored, pixel = evaluation.streamed_pixel_metrics(truth, work.detector, tested, work.size, work.device, views)
    else:
        drop = _dropped if large else None
        scored = evaluation.score_all(work.detector, tested, work.size, work.device, drop, views=views)
        if scored.maps is not None and truth.usable:
            pixel = evaluation.pixel_metrics(truth, scored.maps) | _by_published_masks(category, scored.maps)
            if replicates:
                seed = stream(0, category.table.attrs["fingerprint"])
                draws = evaluation.pixel_replicates(truth, scored.maps, seed)
    labels = _labels(category)
    values = evaluation.image_metrics(labels, scored.scores, threshold["tau"])
    values |= {name: value for name, value in pixel.items() if name.startswith(PIXEL_METRICS)}
    values["mean_grey_auroc"] = evaluation.mean_grey_floor(_levels(category), labels)
    counts = {"fit": len(category.fit), "held": len(category.held)}
    counts |= {"normal": int((labels == 0).sum()), "anomalous": int(labels.sum())}
    facts = {"metrics": values, "threshold": threshold, "counts": counts, "pixel": truth.facts | pixel}
    facts |= {"notes": category.table.attrs["notes"], "provenance": category.table.attrs.get("provenance")}
    return facts, scored, draws


def _levels(category: CategoryData) -> np.ndarray:
    """Mean grey level [N] of the test pictures as the network sees them, 0..255, padding left out."""
    everything = category.pictures
    if not category.views.plain:
        return category.views.levels(everything, category.test)
    return everything[category.test].reshape(len(category.test), -1).mean(1)


def _dropped(start: int, maps: np.ndarray) -> None:
    """What becomes of maps that nobody needs at full size."""


def _by_published_masks(category: CategoryData, maps: np.ndarray) -> dict[str, float]:
    """Pixel metrics with masks brought to the grid as the authors do, where that differs from the run's rule."""
    truth = category.published_truth
    if truth is None or not truth.usable:
        return {}
    values = evaluation.pixel_metrics(truth, maps)
    names = ("pixel_auroc", "pixel_ap")
    return {f"{name} ({truth.rule} masks)": values[name] for name in names if name in values}


def _scores_table(category: CategoryData, scored: evaluation.Scored, tau: float) -> pd.DataFrame:
    tested = category.table.iloc[category.test]
    root = Path(tested.attrs["root"])
    return pd.DataFrame(
        {
            "category": category.name,
            "path": [Path(path).relative_to(root).as_posix() for path in tested.path],
            "label": tested.label.to_numpy(),
            "defect": tested.defect.to_numpy(),
            "score": scored.scores,
            "decision": (scored.scores > tau).astype(int),
            "mean_grey": _levels(category).round(3),
        }
    )


def write(work: Work, trained: Trained, measured: Measured, code: str, folder: Path) -> None:
    """All files of the run; run.json last."""
    trained.history.to_csv(folder / "history.csv", index=False, lineterminator="\n")
    scores = pd.concat(measured.scores, ignore_index=True)
    scores.to_csv(folder / "scores.csv", index=False, lineterminator="\n")
    state = {name: tensor.contiguous() for name, tensor in learnt_state(work.detector).items()}
    # as bytes, because safetensors' own writer turns a full disk into an error class of its own
    (folder / "model.safetensors").write_bytes(save(state, metadata={"method": work.plan.method}))
    if measured.small:
        # for pictures; the largest numbers of float16 take the place of what is beyond them
        small = np.concatenate(measured.small).clip(-65504, 65504).astype(np.float16)
        np.savez_compressed(folder / "maps.npz", maps=small)
    if measured.replicates:
        np.savez_compressed(folder / "replicates.npz", **measured.replicates)
    facts = record(
        work.plan,
        work.detector,
        work.device,
        code,
        measured.per_category,
        protocol(work, localises=bool(measured.small)),
        work.seconds,
        trained.best.get("epoch"),
    )
    proof.write(folder, facts)


def protocol(work: Work, localises: bool = True) -> dict:
    """What decides whether two numbers may be compared (specs/common, section 8); localises: the system makes maps."""
    config, geometry = work.plan.config, {}
    if config.resize_mode == "tiles":
        geometry = {"stride": config.stride or config.image_size // 2, "views": "highest score, maps stitched"}
    elif config.resize_mode == "pad":
        geometry = {"padding": "mirrored, left out" if localises else "mirrored, in the score of a system without maps"}
    return {
        "training": "per category" if len(work.categories) == 1 else "together",
        "holdback": config.holdback,
        "image_size": config.image_size,
        "resize_mode": config.resize_mode,
        "resize": config.resize,
        "resample": config.resample,
        **geometry,
        "mask_rule": config.mask_rule,
        "metric_size": work.size,
        "select": "last",
        "aupro": "streaming, 8-connected" if work.streamed else "exact, 8-connected",
        "aupro_limit": 0.3,
        "epochs": config.epochs,
        "steps": config.steps,
        "backbone": getattr(config, "backbone", None),
        **work.detector.protocol,
    }
