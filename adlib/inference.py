"""The inference module: a trained detector and pictures in, scores, decisions, heat maps and milliseconds out.

The SimpleNet report's own contribution (its sections 4.1-4.4), here for every system. Decisions use the threshold that
the run took from normal training images. Every picture is processed alone, so its score does not depend on its
neighbours.
"""

import errno
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import torch

from adlib import images
from adlib.common.errors import UserError
from adlib.common.files import written_whole
from adlib.data.samples import ENDINGS
from adlib.evaluation import stitched
from adlib.models.base import Detector
from adlib.views import Stitcher, Views

OPACITY = 0.7  # of an overlay where the score is at the top of the scale
STRIP = 256  # rows of a picture that are coloured at once
WARM_UP = 10  # calls before the first picture, so that its milliseconds are those of all others
BATCH = 16  # tiles of a picture that go through the network at once


def pictures_in(source: str | Path, out: str | Path | None = None) -> list[Path]:
    """One picture, or what looks like one below a folder, in order of path: by its ending, whatever it then is.

    Links to folders (which may lead in a circle) and folders that cannot be read are in the list too, so that reading
    them says why no picture of theirs was scored; hidden entries are not. out: where the results go; what lies in it is
    left out. Raises UserError where there is no picture, or no place for results.
    """
    path = Path(source)
    if not str(source).strip():
        raise UserError("the name of the pictures is empty; give a picture or a folder of pictures")
    if out is not None:
        _check_out(path, out)
    if path.is_dir():
        listed = sorted(_looking_like_pictures(path, None if out is None else os.path.realpath(out)))
        if not listed:
            raise UserError(f"folder {path} holds no picture; valid endings: {', '.join(sorted(ENDINGS))}")
        return listed
    if not path.exists() and not path.is_symlink():
        raise UserError(f"picture {path} does not exist; give a picture or a folder of pictures")
    return [path]


def _check_out(source: Path, out: str | Path) -> None:
    if not str(out).strip():
        raise UserError("the name of the folder for results is empty; give a new or an existing one")
    if os.path.lexists(out) and not os.path.isdir(out):
        raise UserError(f"results cannot be written to {out}, which is no folder; give a new or an existing one")
    if source.is_dir() and os.path.realpath(out) == os.path.realpath(source):
        raise UserError(f"{out} is the folder of the pictures itself; give another one for the results")


def _looking_like_pictures(folder: Path, without: str | None) -> Iterator[Path]:
    unreadable = []
    for place, inner, names in os.walk(folder, onerror=lambda error: unreadable.append(Path(error.filename))):
        folders = [Path(place, name) for name in inner if not name.startswith(".")]
        links = {path for path in folders if path.is_symlink()}
        folders = [path for path in folders if os.path.realpath(path) != without]
        inner[:] = [path.name for path in folders]
        yield from (path for path in folders if path in links or path.suffix.lower() in ENDINGS)
        files = (Path(place, name) for name in names if not name.startswith("."))
        yield from (path for path in files if path.suffix.lower() in ENDINGS)
    yield from unreadable


class Predictor:
    """A trained detector on a device, ready for one picture after the other: `predictor(rgb) -> dict`.

    threshold: what `evaluation.thresholds` took from normal images (run.json has it per category).
    """

    def __init__(self, detector: Detector, threshold: dict, device: str = "cpu"):
        self.detector, self.threshold, self.device = detector.eval(), threshold, device
        self.geometry = detector.config.geometry
        for _ in range(WARM_UP):
            self.warm_up()
        images.Image.init()  # Pillow loads its codecs at the first picture

    @torch.inference_mode()
    def _network(self, views: np.ndarray):
        """uint8 [m,3,S,S] -> (Scores of the views, milliseconds of transfer and of the network)."""
        start = time.perf_counter()
        tensor = images.to_float(views, self.device)
        self._wait()
        middle = time.perf_counter()
        out = self.detector.score(self.detector.embed(tensor))
        self._wait()
        return out, 1e3 * (middle - start), 1e3 * (time.perf_counter() - middle)

    def warm_up(self) -> None:
        """One call on a grey picture."""
        self(np.full((self.geometry.image_size,) * 2 + (3,), 128, np.uint8))

    def _wait(self) -> None:
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)

    def __call__(self, picture: str | Path | np.ndarray) -> dict:
        """File or uint8 RGB [H,W,3] -> score, decision (1 = anomalous), map or None, milliseconds per part.

        The map is [S,S], of padded and tiled pictures [h,w] over the resized picture without padding.
        """
        start = time.perf_counter()
        rgb = images.decode(picture) if isinstance(picture, str | Path) else np.asarray(picture)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise UserError(f"a picture array is {rgb.dtype} {list(rgb.shape)}; it must be uint8 RGB [H,W,3]")
        cut = images.cut(rgb, self.geometry)
        stitcher = Stitcher(Views.of_sizes([rgb.shape[:2]], self.geometry))
        decoded = 1e3 * (time.perf_counter() - start)
        transfer = network = post = 0.0
        for first in range(0, len(cut), BATCH):
            out, moved, computed = self._network(cut[first : first + BATCH])
            after = time.perf_counter()
            finished = stitched(self.detector, stitcher, out)
            transfer, network, post = transfer + moved, network + computed, post + time.perf_counter() - after
        after = time.perf_counter()
        [(image, whole)] = finished
        score = float(image)
        if not np.isfinite(score):  # NaN > threshold is False: it would pass as normal
            raise UserError(f"the score of {picture if isinstance(picture, str | Path) else 'an array'} is not finite")
        amap = None if whole is None else whole.cpu().numpy()
        end = time.perf_counter()
        return {
            "score": score,
            "decision": int(score > self.threshold["tau"]),
            "threshold": self.threshold["tau"],
            "decode_ms": decoded,
            "transfer_ms": transfer,
            "network_ms": network,
            "post_ms": 1e3 * (post + end - after),
            "end_to_end_ms": 1e3 * (end - start),
            "map": amap,
            "size": rgb.shape[:2],
        }


def predict(predictor: Predictor, pictures, maps: bool = False) -> pd.DataFrame:
    """Score pictures: a path, a folder, a list of paths or uint8 RGB arrays [H,W,3], or a tensor [B,3,H,W] in 0..1.

    One row each: path, score (higher = more anomalous), decision at the stored normal-only threshold, milliseconds
    (decode with resize, transfer, network, post-processing, end to end; warmed up). maps=True adds the map, float32
    [S,S]; of padded and tiled pictures [h,w] over the resized picture without padding. Raises UserError for a picture
    that cannot be read.
    """
    pictures, rows = list(_listed(pictures)), []
    for picture in pictures:
        name = str(picture) if isinstance(picture, str | Path) else f"array {len(rows)}"
        result = predictor(picture)
        del result["size"]
        if not maps:
            del result["map"]
        rows.append({"path": name} | result)
    return pd.DataFrame(rows)


def _listed(pictures) -> Iterable:
    if isinstance(pictures, str | Path):
        return pictures_in(pictures)
    if torch.is_tensor(pictures):
        whole = pictures if pictures.ndim == 4 else pictures[None]
        if whole.ndim != 4 or whole.shape[1] != 3 or not whole.is_floating_point():
            raise UserError(
                f"a tensor of images is {pictures.dtype} {list(pictures.shape)}; it must be float [B,3,H,W] in 0..1"
            )
        return (255 * whole.clamp(0, 1)).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [pictures] if isinstance(pictures, np.ndarray) and pictures.ndim == 3 else pictures


def predict_to_folder(predictor: Predictor, source: str | Path, out: str | Path) -> pd.DataFrame:
    """Write a heat map and an overlay per picture and one predictions.csv to `out`; returns the table.

    crack/007.png gives crack/007_map.png and crack/007_overlay.png (see `output_names`). The map lies over the original
    picture, blank where the crop left something out. What cannot be read does not stop the others: its row has the
    reason, and a UserError naming it is raised when all are done.
    """
    listed, source, out = pictures_in(source, out), Path(source), Path(out)
    base = source if source.is_dir() else source.parent
    names = output_names(listed)
    try:
        out.mkdir(parents=True, exist_ok=True)
        rows = [_predicted(predictor, path, path.relative_to(base), out, names[path]) for path in listed]
        table = _ordered(pd.DataFrame(rows))
        with written_whole(out / "predictions.csv") as scratch:
            # a name that is no UTF-8 is written with its bytes as \udc..
            table.to_csv(scratch, index=False, lineterminator="\n", errors="backslashreplace")
    except OSError as error:
        raise UserError(
            f"results cannot be written to {out} ({error.strerror}); free space or choose another folder"
        ) from error
    bad = [row["error"] for row in rows if "error" in row]
    if bad and len(bad) == len(listed):
        raise UserError(bad[0] if len(bad) == 1 else f"none of {len(bad)} pictures could be read: {bad[0]}")
    if bad:
        raise UserError(
            f"{len(bad)} of {len(listed)} pictures could not be read, the others are in {out}, where predictions.csv "
            f"names each: {bad[0]}"
        )
    return table


def _predicted(predictor: Predictor, path: Path, name: Path, out: Path, target: str) -> dict:
    """The row of one picture, its images drawn; or, where it cannot be read, the row with the reason."""
    try:
        result = predictor(path)
        _draw(result, path, out / name.with_name(target), predictor)
    except UserError as error:
        return {"path": name.as_posix(), "error": str(error)}
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        reason = f"the name of image {path} is too long for the results beside it; shorten it"
        return {"path": name.as_posix(), "error": reason}
    return {"path": name.as_posix()} | {k: v for k, v in result.items() if k not in ("map", "size")}


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Decisions stay 0 and 1 beside rows that have none, and reasons stand in the last column."""
    if "error" not in table:
        return table
    if "decision" in table:
        table = table.astype({"decision": "Int64"})
    return table[[c for c in table if c != "error"] + ["error"]]


def output_names(pictures: list[Path]) -> dict[Path, str]:
    """What the files made of each picture are named after: its name without the ending, where no other picture of its
    folder has the same or is called so; else its whole name.
    """
    stems = Counter((path.parent, path.stem) for path in pictures)
    whole = {(path.parent, path.name) for path in pictures}
    names = {}
    for path in pictures:
        taken = stems[path.parent, path.stem] > 1 or (path.parent, path.stem) in whole - {(path.parent, path.name)}
        names[path] = path.name if taken else path.stem
    return names


def colour_limits(threshold: dict) -> tuple[float, float]:
    """Range of all pictures of a category: from the median of normal maps, with the normal-only threshold in the
    middle.
    """
    low = threshold["map_scale"][0]
    return low, low + 2 * max(threshold["map_tau"] - low, 1e-12)


def heat_map(level: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
    """Viridis: level [H,W] in 0..1 -> RGB [H,W,3] in 0..1; white where `seen` (bool [H,W]) is False."""
    from matplotlib import colormaps  # heavy, and only pictures need it

    colours = colormaps["viridis"](level)[..., :3]
    return colours if seen is None else np.where(seen[..., None], colours, 1.0)


def overlay(picture: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Magma over the picture, opaque where the level is high: uint8 [H,W,3] and [H,W] in 0..1 -> [H,W,3] in 0..1."""
    from matplotlib import colormaps  # heavy, and only pictures need it

    alpha = OPACITY * level[..., None]
    return (1 - alpha) * (picture / 255) + alpha * colormaps["magma"](level)[..., :3]


def _draw(result: dict, path: Path, target: Path, predictor: Predictor) -> None:
    """target_map.png (viridis) and target_overlay.png (magma, opacity = score) at the original size."""
    if result["map"] is None:
        return
    picture = images.decode(path)
    low, high = colour_limits(predictor.threshold)
    value = images.paste_back(result["map"], result["size"], predictor.geometry)
    shown = {name: np.empty_like(picture) for name in ("map", "overlay")}
    for top in range(0, len(picture), STRIP):  # colours take 32 bytes a pixel: too many for all of a large picture
        rows = slice(top, top + STRIP)
        seen = np.isfinite(value[rows])
        level = np.clip((np.where(seen, value[rows], low) - low) / (high - low), 0, 1)
        shown["map"][rows] = (255 * heat_map(level, seen)).round()
        shown["overlay"][rows] = (255 * overlay(picture[rows], level)).round()
    target.parent.mkdir(parents=True, exist_ok=True)
    for name, pixels in shown.items():
        PIL.Image.fromarray(pixels).save(target.with_name(f"{target.name}_{name}.png"))
