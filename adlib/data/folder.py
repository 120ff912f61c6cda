"""folder: the user's own images."""

from collections import Counter
from pathlib import Path

from adlib.common.errors import UserError
from adlib.common.pictures import size_of
from adlib.data.dataset import DataSet, Rules
from adlib.data.samples import Sample, by_stem, exists, folders, hashed_split, images, listing, some

RESERVED = {"normal", "test", "masks"}  # folders that are no kind of defect


def samples(root: Path, category: str, split_seed: int = 0) -> tuple[list[Sample], list[str]]:
    """`normal/`, one folder per kind of defect, optional `test/` and `masks/`.

    Normal test images: those of `test/normal/`, else 20 % of `normal/` by hash. Kinds of defect: all other folders,
    here and in `test/`. Masks: `masks/<kind>/<stem>.*` or `masks/<stem>.*`; UserError where one could belong to two
    images.
    """
    base, notes = (root / category if exists(root / category / "normal") else root), []
    if not exists(base / "normal"):
        listing(root / category)  # names a file in its place
        raise UserError(f"no folder normal/ in {base}; put normal pictures there and each kind of defect beside it")
    paths = images(base / "normal", notes)
    if exists(base / "test" / "normal"):
        normal = [Sample(path, "train") for path in paths]
        normal += [Sample(path, "test") for path in images(base / "test" / "normal", notes)]
    else:
        train = hashed_split([path.name for path in paths], split_seed)
        normal = [Sample(path, "train" if path.name in train else "test") for path in paths]
        notes.append(f"no test/normal/: 80 % of normal/ train, by hash with split_seed={split_seed}")
    kinds = [f for f in (*folders(base), *folders(base / "test")) if f.name not in RESERVED]
    for kind in kinds:
        if kind.name.lower() in RESERVED | {"good"}:
            raise UserError(
                f"folder {kind} would be a kind of defect, but its name says something else; normal pictures belong "
                "into normal/, masks into masks/, or rename it"
            )
    defects = [Sample(path, "test", 1, kind.name) for kind in kinds for path in images(kind, notes)]
    return normal + _with_masks(defects, base / "masks", notes), notes


def _with_masks(defects: list[Sample], masks: Path, notes: list[str]) -> list[Sample]:
    common = by_stem(images(masks))
    by_kind = {kind: by_stem(images(masks / kind)) for kind in {s.defect for s in defects}}
    owners = Counter(s.path.stem for s in defects)
    paired = []
    for s in defects:
        mask = by_kind[s.defect].get(s.path.stem) or common.get(s.path.stem)
        if mask and mask.parent == masks and owners[s.path.stem] > 1:
            raise UserError(f"mask {mask} fits {owners[s.path.stem]} images; move it to {masks / '<kind>'}/")
        paired.append(s._replace(mask=mask))
    shared = [mask for mask, count in Counter(s.mask for s in paired if s.mask).items() if count > 1]
    if shared:
        raise UserError(f"mask {shared[0]} fits several images; give them different names, endings apart")
    missing = [f"{s.defect}/{s.path.name}" for s in paired if not s.mask]
    if missing:
        notes.append(f"{len(missing)} anomalous images without mask: {some(missing)}")
    return paired


def masks_fit(listed: list[Sample], notes: list[str]) -> tuple[list[Sample], list[str]]:
    """The samples as they are; UserError where a mask and its image differ in size."""
    for s in listed:
        if s.mask:
            width, height = size_of(s.path)
            mask_width, mask_height = size_of(s.mask)
            if (width, height) != (mask_width, mask_height):
                raise UserError(
                    f"mask {s.mask} is {mask_width}x{mask_height} but its image {s.path} is {width}x{height}; they must"
                    " be equal"
                )
    return listed, notes


def categories(root: Path) -> list[str]:
    """Folders that hold normal/; none where the root itself does, which is then one category of any name."""
    return [] if exists(root / "normal") else [f.name for f in folders(root) if exists(f / "normal")]


def _place(root: Path, category: str) -> Path:
    return root / category if exists(root / category) else root


DATASET = DataSet(
    "folder",
    samples,
    categories,
    "make it with normal/ and one folder per kind of defect, or set ADLIB_DATA to the folder that holds folder/",
    folder=_place,
    checked=masks_fit,
    rules=Rules(masks="kind", one_size=False),
    no_download="it is made of your own pictures (data/README.md says how)",
)
