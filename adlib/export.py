"""A finished run as an ONNX file: image in, score and map out, without Python. Needs the extra `adlib[export]`."""

import importlib
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import adlib
from adlib.common.errors import UserError
from adlib.common.files import written_whole
from adlib.evaluation import to_grid
from adlib.images import Geometry

EXTRA = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of the largest absolute value, at least of 1
TILES = (
    "resize so that the shorter side has `resize` pixels (null: image_size); cut square tiles of image_size every "
    "{stride} pixels, the last one flush with the border; a picture's score is the highest of its tiles, its map their "
    "mean weighted by a pyramid (adlib.views.window)"
)
BATCHES = (1, 3)  # sizes that are compared; the graph is traced with 2


class Disagrees(UserError):
    """The exported graph computes something else than the run; nothing was written."""

    status = 1


@dataclass(frozen=True)
class Exported:
    """What was written, and how far onnxruntime is from torch (relative to the largest value, at least to 1)."""

    file: Path
    sidecar: Path
    side: int
    outputs: tuple[str, ...]
    difference: float


class Graph(nn.Module):
    """What the file computes: images [B,3,S,S] in 0..1 -> score [B], and map [B,S,S] where the system has one.

    Resizing and cropping come before it and are named in the file's metadata: they work on whole pictures of any size.
    Of tiles it computes each by itself; the metadata say how a picture's score and map come from theirs.
    """

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        scores = self.detector.score(self.detector.embed(image))
        if scores.map is None:
            return (scores.image,)
        return scores.image, to_grid(scores.map, image.shape[-1])


def to_onnx(run, file: str | Path) -> Exported:
    """Write FILE and FILE.json (method, run, thresholds, geometry), which also stand in the file's metadata_props.

    run: `adlib.runs.Run`. Any batch size; the side is the run's. Compared with torch through onnxruntime before it gets
    its name. UserError: a missing extra, a missing file of the run, a place that cannot be written, a run with padding;
    Disagrees: beyond TOLERANCE.
    """
    _check_extra()
    file = Path(file)
    graph = Graph(run.detector("cpu")).eval()
    if graph.detector.config.resize_mode == "pad":
        raise UserError(
            f"run {run.path} leaves the padding of each picture out of its score, which an ONNX file cannot do; export"
            " a run with resize_mode squash, short_crop or tiles"
        )
    side = graph.detector.config.image_size
    with torch.inference_mode():
        outputs = ("score", "map")[: len(graph(torch.rand(2, 3, side, side)))]  # also folds what is folded lazily
    program = _traced(graph, side, outputs)
    facts = metadata(run, graph.detector.config.geometry)
    program.model.metadata_props.update({key: _text(value) for key, value in facts.items()})
    sidecar = file.with_name(f"{file.name}.json")
    try:
        with written_whole(file) as scratch:
            program.save(scratch, external_data=False)
            difference = _difference(graph, scratch, side)
            if not difference <= TOLERANCE:
                raise Disagrees(
                    f"onnxruntime differs by {difference:.1e} from the scores and maps of {run.path}, more than "
                    f"{TOLERANCE:g} of the largest; nothing was written"
                )
        with written_whole(sidecar) as scratch:
            scratch.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); choose another file") from error
    return Exported(file, sidecar, side, outputs, difference)


def _check_extra() -> None:
    for name in EXTRA:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"exporting needs the package {name}; install it with `pip install 'adlib[export]'`"
            ) from error


def _traced(graph: Graph, side: int, outputs: tuple[str, ...]):
    """torch.onnx.ONNXProgram with a free batch size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own tracing, about itself
        sample, free = (torch.rand(2, 3, side, side),), {"image": {0: torch.export.Dim("batch")}}
        try:
            program = torch.export.export(graph, sample, dynamic_shapes=free)
        except torch._dynamo.exc.UserError:  # len() of a tensor is a constant to it, but not to the strict tracer
            program = torch.export.export(graph, sample, dynamic_shapes=free, strict=True)
        return torch.onnx.export(program, input_names=["image"], output_names=list(outputs), dynamo=True, verbose=False)


def metadata(run, geometry: Geometry) -> dict:
    """What one needs to use the file: where the images come from, which score is anomalous, which run it is."""
    record, views = run.record, {}
    if geometry.resize_mode == "tiles":
        views = {"tiles": TILES.format(stride=geometry.stride or geometry.image_size // 2)}
    return {
        "method": record["method"],
        "dataset": record["dataset"],
        "categories": record["categories"],
        "seed": record["seed"],
        "run": record["hash"],
        "geometry": asdict(geometry),
        **views,
        "thresholds": {c: facts["threshold"]["tau"] for c, facts in record["per_category"].items()},
        "decision": "anomalous where score > threshold",
        "adlib": adlib.__version__,
    }


def _text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _difference(graph: Graph, file: Path, side: int) -> float:
    """The largest difference between onnxruntime and torch over random images, relative to the largest value or 1."""
    import onnxruntime  # of the extra

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    differences = []
    for batch in BATCHES:
        images = torch.rand(batch, 3, side, side, generator=generator)
        with torch.inference_mode():
            expected = graph(images)
        for ours, theirs in zip(expected, session.run(None, {"image": images.numpy()}), strict=True):
            distance = (ours - torch.from_numpy(theirs)).abs().max() / ours.abs().max().clamp(min=1)
            differences.append(distance)
    return torch.stack(differences).max().item()  # NaN where one is
