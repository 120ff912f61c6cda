"""Every kind of fault that verification must find, as a function that breaks a made data set.

`FAULTS[kind](spot)` breaks the files and returns (kind of fault, path) of all faults that follow. `CASES` are the
combinations with layouts; `EXCLUDED` names those without meaning, with the reason.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import made_layouts
from PIL import Image

from adlib.data.inspection.verify import verify

LAYOUTS = sorted(made_layouts.MAKERS)
# textures makes whatever category is not there, in full size; so only the small one is asked for
CATEGORIES = {"textures": ["brick"]}


Expected = set[tuple[str, Path]]


@dataclass(frozen=True)
class Spot:
    """Files of one made data set that faults are injected into."""

    layout: str
    root: Path
    place: Path  # the folder of the category
    train: Path
    other: Path  # a second training image
    good: Path | None = None  # a normal test image
    defect: Path | None = None
    mask: Path | None = None  # of that defect

    @property
    def image(self) -> Path:
        """An image without mask where the layout has one; in dtd everything is training material."""
        return self.good or self.train

    def check(self):
        return verify(self.layout, self.root, CATEGORIES.get(self.layout), progress=False)


FAULTS: dict[str, Callable[[Spot], Expected]] = {}


def fault(inject: Callable[[Spot], Expected]):
    """Register an injector: it breaks the files of a spot and returns (kind, path) of all faults that follow."""
    FAULTS[inject.__name__] = inject
    return inject


def beside(path: Path) -> Path:
    """mtd: the mask of a tile."""
    return path.with_suffix(".png")


def misfit(spot: Spot, image: Path) -> Expected:
    """mtd: every tile has its own size, so a copy does not fit the mask that was there."""
    if spot.layout != "mtd":
        return set()
    with Image.open(image) as picture, Image.open(beside(image)) as mask:
        return {("mask size", beside(image))} if picture.size != mask.size else set()


def rewrite(path: Path, mode: str | None = None, size: tuple[int, int] | None = None) -> None:
    with Image.open(path) as image:
        changed = image.convert(mode or image.mode).resize(size or image.size)
    changed.save(path)


@fault
def missing_image(spot):
    spot.image.unlink()
    if spot.layout == "elpv":
        return {("unreadable", spot.image)}  # its list names every file, so the image is not merely uncounted
    orphan = {("stray", beside(spot.image))} if spot.layout == "mtd" else set()
    return {("count", spot.image.parent), *orphan}


@fault
def surplus_image(spot):
    extra = spot.train.with_stem({"mtd": "exp9_num_1", "dagm": "9999"}.get(spot.layout, "0099"))
    made_layouts.picture(extra, Image.open(spot.train).mode)
    if spot.layout == "elpv":
        return {("stray", extra)}
    return {("count", extra.parent)} | ({("mask missing", extra)} if spot.layout == "mtd" else set())


@fault
def unknown_kind_of_defect(spot):
    kind = spot.root / "MT_Dent" / "Imgs" if spot.layout == "mtd" else spot.defect.parent.parent / "dent"
    extra = made_layouts.picture(kind / f"0000{spot.defect.suffix}", Image.open(spot.defect).mode)
    return {("count", kind), ("mask missing", extra)}


@fault
def zero_byte_image(spot):
    spot.image.write_bytes(b"")
    return {("unreadable", spot.image)}


@fault
def truncated_image(spot):
    content = spot.image.read_bytes()
    spot.image.write_bytes(content[: len(content) * 2 // 3])
    return {("unreadable", spot.image)}


@fault
def text_instead_of_an_image(spot):
    spot.image.write_text("<html>404 Not Found</html>")
    return {("unreadable", spot.image)}


@fault
def dangling_link(spot):
    spot.image.unlink()
    spot.image.symlink_to("/nowhere/else.png")
    return {("unreadable", spot.image)}


@fault
def folder_named_like_an_image(spot):
    expected = missing_image(spot)
    spot.image.mkdir()
    return expected


@fault
def missing_mask(spot):
    spot.mask.unlink()
    return {("mask missing", spot.defect)}


@fault
def renamed_mask(spot):
    renamed = spot.mask.rename(spot.mask.with_stem(f"{spot.mask.stem}-copy"))
    return {("mask missing", spot.defect), ("stray", renamed)}


@fault
def surplus_mask(spot):
    return {("stray", Path(shutil.copy(spot.mask, spot.mask.with_stem(f"{spot.mask.stem} (1)"))))}


@fault
def mask_of_another_size(spot):
    rewrite(spot.mask, size=(40, 30))
    return {("mask size", spot.mask)}


@fault
def empty_mask(spot):
    with Image.open(spot.mask) as image:
        size = image.size
    made_layouts.mask(spot.mask, size, empty=True)
    return {("mask empty", spot.mask)}


@fault
def faint_mask(spot):
    """Grey 100 is anomalous above 0 and not above 127."""
    with Image.open(spot.mask) as image:
        image.point(lambda value: 100 * (value > 0)).save(spot.mask)
    return {("mask empty", spot.mask)}


@fault
def marked_mask_of_a_normal_image(spot):
    with Image.open(spot.good) as image:
        made_layouts.mask(beside(spot.good), image.size)
    return {("mask of normal", beside(spot.good))}


@fault
def truncated_mask(spot):
    content = spot.mask.read_bytes()
    spot.mask.write_bytes(content[: len(content) // 2])
    return {("unreadable", spot.mask)}


@fault
def zero_byte_mask(spot):
    spot.mask.write_bytes(b"")
    return {("unreadable", spot.mask)}


@fault
def mask_of_another_mode(spot):
    rewrite(spot.mask, mode="RGB")
    return {("mode", spot.mask)}


@fault
def copy_of_a_test_image_in_train(spot):
    shutil.copy(spot.good, spot.train)
    return {("duplicate", spot.good)} | misfit(spot, spot.train)


@fault
def defective_image_in_train_compressed_anew(spot):
    """Other bytes, the same pixels: a copy that a hash of the file would miss."""
    with Image.open(spot.defect) as image:
        image.load()
    if spot.layout in ("mtd", "folder"):
        shutil.copy(spot.defect, spot.train)  # JPEG: new compression is new pixels
    else:
        options = {} if spot.train.suffix == ".bmp" else {"compress_level": 0}
        image.save(spot.train, **options)
    return {("duplicate", spot.defect)} | misfit(spot, spot.train)


@fault
def image_both_normal_and_defective(spot):
    shutil.copy(spot.defect, spot.good)
    return {("duplicate", max(spot.defect, spot.good))} | misfit(spot, spot.good)


@fault
def stray_file(spot):
    extra = spot.train.parent / "Bild.heic"
    extra.write_text("x")
    return {("stray", extra)}


@fault
def stray_picture(spot):
    place = {"folder": spot.place / "masks"}.get(spot.layout, spot.place / "backup")
    return {("stray", made_layouts.picture(place / "9999.png"))}


@fault
def wrong_mode(spot):
    with Image.open(spot.image) as image:
        other = "L" if image.mode == "RGB" else "RGB"
    rewrite(spot.image, mode=other)
    return {("mode", spot.image)}


@fault
def wrong_size(spot):
    rewrite(spot.image, size=(20, 20))
    return {("mask size", beside(spot.image)) if spot.layout == "mtd" else ("size", spot.image)}


@fault
def category_without_images(spot):
    for path in spot.place.rglob("*"):
        if path.is_file() and path.name != "train_names.txt":
            path.unlink()
    return {("count", spot.place)}


@fault
def file_instead_of_a_folder(spot):
    folder = {"mtd": spot.root / "MT_Free", "folder": spot.place / "normal"}.get(spot.layout, spot.place)
    shutil.rmtree(folder)
    folder.write_text("")
    return {("layout", spot.place)}


@fault
def broken_list(spot):
    listed = next(path for name in ("labels.csv", "Labels.txt", "train_names.txt") for path in spot.place.rglob(name))
    listed.write_bytes(b"\xff\xfe\x00 not text\n\xff 7 8 9")
    return {("layout", spot.place)}


NO_MASKS = {"elpv": "has no masks", "dtd": "has no masks"}
NO_COUNTS = {"folder": "nobody knows how many pictures a user's own data should have"}
ALL_TRAIN = {"dtd": "a source of textures has no test images"}
NO_LIST = dict.fromkeys(("mvtec_ad", "btad", "folder", "textures", "dtd"), "needs no list of names")
EXCLUDED = {
    "missing_image": NO_COUNTS,
    "folder_named_like_an_image": NO_COUNTS
    | {"elpv": "the listed path is there, so it is unreadable, see dangling_link"},
    "surplus_image": NO_COUNTS,
    "unknown_kind_of_defect": {
        "dagm": "has one kind only",
        "elpv": "has one kind only",
        "dtd": "has no defects",
        "folder": "every folder is a kind of defect",
    },
    **{kind: NO_MASKS for kind in FAULTS if "mask" in kind},
    "faint_mask": {name: "marks whatever is above 0" for name in ("mvtec_ad", "dagm", "folder", "textures")} | NO_MASKS,
    "marked_mask_of_a_normal_image": {n: "has no masks of normal images" for n in LAYOUTS if n != "mtd"},
    "copy_of_a_test_image_in_train": ALL_TRAIN,
    "defective_image_in_train_compressed_anew": ALL_TRAIN,
    "image_both_normal_and_defective": ALL_TRAIN,
    "wrong_size": {"folder": "a user's pictures may differ in size", "dtd": "sizes differ in the published one"},
    "category_without_images": {"elpv": "all its names are listed: each is a missing image of its own"},
    "file_instead_of_a_folder": {
        "elpv": "all its names are listed: each is a missing image of its own",
        "folder": "a category is a folder that holds normal/, so there is none: bad input",
        "dtd": "a class is a folder: without it the class is absent, which is a note",
    },
    "broken_list": NO_LIST,
}
CASES = [(kind, name) for kind in FAULTS for name in LAYOUTS if name not in EXCLUDED.get(kind, {})]
