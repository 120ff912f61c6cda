"""What a data set looks like: counts against the official ones, sizes, masks, and what brightness alone gives away.

`measure` reads every picture and mask of a category once; everything else is arithmetic on its long table, so that a
notebook reads a data set a single time. Grey means the mean over all pixels and the three channels of the full picture,
0..255: the definition of `evaluation.mean_grey_floor`, which takes it after resizing and cropping instead.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from adlib import data, images, metrics
from adlib.common.errors import UserError
from adlib.data import cautions, mixtures
from adlib.data.samples import some

GROUPS = ("normal train", "normal test", "defective")
KEY = ["dataset", "category"]
QUANTILES = (0.1, 0.5, 0.9)
ORACLE = "mean grey AUROC (oracle)"


def available() -> list[str]:
    """Data sets on this machine: those whose folder exists, and the embedded ones."""
    return [name for name, source in data.DATASETS.items() if not source.advice or source.place().is_dir()]


def tables(dataset: str, categories: Iterable[str] | None = None) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """({category: sample table}, notes) of the named categories, or of all that are here; notes name the absent ones.

    UserError: a named category that cannot be loaded, a category that is there but cannot, or none at all.
    """
    here, absent = {}, {}
    for category in data.categories(dataset) if categories is None else categories:
        try:
            table = _table(dataset, category)
        except UserError as error:
            if categories is not None or _is_there(dataset, category):
                raise
            absent[category] = error
        else:
            here[table.attrs["category"]] = table
    if not here and categories is None and not absent:
        table = _table(dataset)  # a data set without named categories is one of any name
        here[table.attrs["category"]] = table
    if not here:
        raise next(
            iter(absent.values()), UserError(f"no category of {dataset} was named; None takes all that are here")
        )
    return here, [f"not here: {len(absent)} of {len(absent) + len(here)}, {some(list(absent))}"] if absent else []


def _table(dataset: str, category: str | None = None) -> pd.DataFrame:
    """The sample table, of a source of textures, too."""
    known = data.load if mixtures.is_mixture(dataset) else data.listed
    return known(dataset, category)


def _is_there(dataset: str, category: str) -> bool:
    """Whether a category has a folder; a mixture's parts are chosen by name, so they must be there."""
    if mixtures.is_mixture(dataset):
        return True
    source = data.CATALOGUE[mixtures.options(dataset)[0]]
    return source.folder(source.place(), category).exists()


def measure(table: pd.DataFrame, limit: int | None = None) -> pd.DataFrame:
    """One row per image of a sample table: dataset, category, name, split, label, defect, group and what was measured.

    group: one of GROUPS; mode, width, height: of the file; grey: mean grey, 0..255; share: anomalous pixels of all, in
    0..1; regions: 8-connected ones of the mask. Both NaN where there is no mask. limit: first images of each split and
    kind only. UserError: unreadable file, or a mask of another size than its image.
    """
    rows = table if limit is None else table[table.groupby(["split", "defect"]).cumcount() < limit]
    threshold, root = table.attrs.get("mask_threshold", 0), table.attrs["root"]
    with ThreadPoolExecutor() as pool:
        pairs = zip(rows.path, rows["mask"], strict=True)
        measuring = pool.map(lambda pair: _measured(*pair, threshold), pairs)
        values = list(tqdm(measuring, total=len(rows), desc="measure", disable=None))
    out = rows[["split", "label", "defect"]].reset_index(drop=True)
    out.insert(0, "name", [Path(path).relative_to(root).as_posix() for path in rows.path])
    out.insert(0, "category", table.attrs["category"])
    out.insert(0, "dataset", table.attrs["dataset"])
    out["group"] = np.where(out.label == 1, GROUPS[2], np.where(out.split == "train", *GROUPS[:2]))
    measured = pd.DataFrame(values, columns=["mode", "width", "height", "grey", "share", "regions"])
    return pd.concat([out, measured], axis=1)


def _measured(path: str, mask: str | None, threshold: int) -> tuple:
    picture = images.decode(path)
    height, width = picture.shape[:2]
    with Image.open(path) as image:
        mode = image.mode
    share = _share(mask, path, threshold) if isinstance(mask, str) else (np.nan, np.nan)
    return mode, width, height, float(picture.mean()), *share


def _share(mask: str, path: str, threshold: int) -> tuple[float, int]:
    """Share of the image and number of regions above the threshold."""
    from scipy import ndimage  # heavy: listing data sets does not wait for it

    anomalous = images.read_mask(mask, path, threshold)
    return float(anomalous.mean()), ndimage.label(anomalous, np.ones((3, 3)))[1]


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Images per part ("train/good", "test/<kind>") of a sample table beside the official number and masks.

    Columns: dataset, category, part, images, official (NA where nobody publishes one), masks. A part that is official
    but absent has 0 images; one that is not official has official 0.
    """
    dataset, category = table.attrs["dataset"], table.attrs["category"]
    part = (table.split + "/" + table.defect).rename("part")
    present = table.groupby(part)["mask"].agg(images="size", masks="count")
    official = _official(dataset, category)
    order = sorted({*present.index, *official}, key=lambda p: (p != "train/good", p != "test/good", p))
    out = present.reindex(order, fill_value=0).rename_axis("part").reset_index()
    known = [official.get(p, 0) if official else pd.NA for p in order]
    out.insert(2, "official", pd.array(known, dtype="Int64"))
    return out.assign(dataset=dataset, category=category)[[*KEY, "part", "images", "official", "masks"]]


def _official(dataset: str, category: str) -> dict[str, int]:
    """Official counts of a category; those of a mixture's part are its own data set's."""
    if mixtures.is_mixture(dataset):
        dataset, category = category.split(":", 1)
    return data.official(mixtures.options(dataset)[0]).get(category, {})


def sizes(measured: pd.DataFrame) -> pd.DataFrame:
    """Modes and sizes per category of `measure`'s table: images, mode, number of sizes, width and height as ranges."""
    rows = []
    for key, group in measured.groupby(KEY, sort=False):
        row = dict(zip(KEY, key, strict=True)) | {"images": len(group), "mode": ", ".join(sorted(set(group["mode"])))}
        row |= {"sizes": len(group[["width", "height"]].drop_duplicates())}
        rows.append(row | {side: _range(group[side]) for side in ("width", "height")})
    return pd.DataFrame(rows)


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def brightness(measured: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of the mean grey, 0..255, per category and group of `measure`'s table, in the order of GROUPS."""
    kept = measured.assign(group=pd.Categorical(measured.group, GROUPS))
    return _quantiles(kept, [*KEY, "group"], "grey")


def defect_shares(measured: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of the defect's share of the image, in 0..1, per category and kind; only images with a mask."""
    return _quantiles(measured[measured.share.notna()], [*KEY, "defect"], "share")


def _quantiles(rows: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
    groups = rows.groupby(by, sort=False, observed=True)[column]
    columns = {f"q{round(100 * q)}": groups.quantile(q) for q in QUANTILES}
    out = pd.DataFrame({"images": groups.size(), **columns}).reset_index()
    return out.sort_values(by, kind="stable", ignore_index=True)


def shortcuts(measured: pd.DataFrame) -> pd.DataFrame:
    """Per category of `measure`'s table, AUROCs that the mean grey alone reaches, in 0..1 (NaN: a group is absent).

    auroc: defective against normal test images, in the better direction (an oracle: labels choose it), with low, high:
    95 % interval in that direction; direction: whether defective images are "brighter" or "darker"; distance: the same
    for |grey - median of normal train| without any choice, what a detector could really do; drift: normal test against
    normal train, 0.5 where the split is fair, above it where the test images are brighter.
    """
    rows = []
    for key, rows_of in measured.groupby(KEY, sort=False):
        train, normal, defective = (rows_of.grey[rows_of.group == g].to_numpy() for g in GROUPS)
        row = dict(zip(KEY, key, strict=True)) | _best_direction(normal, defective)
        centre = np.median(train) if len(train) else np.nan
        row["distance"] = _auroc(abs(normal - centre), abs(defective - centre))
        row["drift"] = _auroc(train, normal)
        rows.append(row | {"n_normal": len(normal), "n_defective": len(defective)})
    return pd.DataFrame(rows)


def _auroc(low: np.ndarray, high: np.ndarray) -> float:
    """P(a value of `high` exceeds one of `low`) + half P(equal); NaN where one is empty."""
    if not len(low) or not len(high):
        return float("nan")
    return metrics.image_auroc(np.repeat([0, 1], [len(low), len(high)]), np.concatenate([low, high]))


def _best_direction(normal: np.ndarray, defective: np.ndarray) -> dict:
    value = _auroc(normal, defective)
    if np.isnan(value):
        return {"auroc": value, "direction": "", "low": value, "high": value}
    sign = -1 if value < 0.5 else 1
    labels = np.repeat([0, 1], [len(normal), len(defective)])
    interval = metrics.bootstrap_interval(labels, sign * np.concatenate([normal, defective]))
    direction = "brighter" if sign > 0 else "darker"
    return {"auroc": max(value, 1 - value), "direction": direction, "low": interval.low, "high": interval.high}


def defect_types(tables: Iterable[pd.DataFrame], printed: pd.DataFrame, dataset: str = "mvtec_ad") -> pd.DataFrame:
    """A printed list of the kinds of defects beside the sample tables of its data set: one row per printed category.

    printed: category, defect_type (the printed name) and <dataset>_folder (the folder that is meant), a row per kind.
    Columns: category, printed (number of its kinds), official, folders (number, NA where the category is not
    here), missing and extra (folder names that are in one of print and folders only), kinds (the printed names).
    """
    here = {t.attrs["category"]: set(t.defect[t.label == 1]) for t in tables if t.attrs["dataset"] == dataset}
    rows = []
    for category, kinds in printed.groupby("category", sort=False):
        expected, present = set(kinds[f"{dataset}_folder"]), here.get(category)
        official = sum(part not in ("train/good", "test/good") for part in _official(dataset, category))
        row = {"category": category, "printed": len(kinds), "official": official}
        row["folders"] = pd.NA if present is None else len(present)
        row["missing"] = ", ".join(sorted(expected - present)) if present is not None else ""
        row["extra"] = ", ".join(sorted(present - expected)) if present is not None else ""
        rows.append(row | {"kinds": ", ".join(kinds.defect_type)})
    return pd.DataFrame(rows).astype({"folders": "Int64"})


def describe(dataset: str, categories: Iterable[str] | None = None, limit: int | None = None) -> pd.DataFrame:
    """One row per category and part ("all", "train/good", "test/good", "test/<kind>") of a data set.

    Columns: dataset, category, part, images, official, masks, mode, size (width x height, ranges where they differ),
    share q10, q50, q90 (of the image, in 0..1), grey (median of the images' means, 0..255), and, for defective parts
    and "all", the AUROC of the mean grey alone against normal test images, in its better direction: an oracle, of full
    pictures. attrs["notes"]: one list of notes. Errors: those of `tables` and `measure`.
    """
    by_category, notes = tables(dataset, categories)
    parts = []
    for category, table in by_category.items():
        measured, count = measure(table, limit), counts(table)
        total = {"part": "all", "images": len(table), "official": count.official.sum(min_count=1)}
        total |= {"masks": count["masks"].sum(), "dataset": table.attrs["dataset"], "category": category}
        rows = [_described(row, measured) for row in [total, *count.to_dict("records")]]
        parts += rows
        known = [table.attrs["provenance"], *table.attrs["notes"], table.attrs["duplicates"], _assumed_shape(table)]
        notes += [f"{category}: {note}" for note in known if note]
    out = pd.DataFrame(parts)
    out["official"] = out.official.astype("Int64")
    if limit is not None:
        notes.append(f"measured: the first {limit} images of each part only; counts are of all")
    out.attrs["notes"] = notes
    return out


def _assumed_shape(table: pd.DataFrame) -> str | None:
    """What usual settings would do to the pictures."""
    usual = cautions.ASSUMED
    sentence = cautions.shape(table, usual)
    return f"at image_size {usual.image_size}, resize_mode {usual.resize_mode}: {sentence}" if sentence else None


def _described(row: dict, measured: pd.DataFrame) -> dict:
    part = row["part"]
    chosen = measured if part == "all" else measured[measured.split + "/" + measured.defect == part]
    share = chosen.share.dropna()
    out = {k: row[k] for k in (*KEY, "part", "images", "official", "masks")}
    out["mode"] = ", ".join(sorted(set(chosen["mode"])))
    out["size"] = f"{_range(chosen.width)} x {_range(chosen.height)}" if len(chosen) else ""
    out |= {f"share q{round(100 * q)}": share.quantile(q) if len(share) else np.nan for q in QUANTILES}
    out["grey"] = chosen.grey.median()
    normal = measured.grey[measured.group == GROUPS[1]].to_numpy()
    defective = chosen.grey[chosen.label == 1].to_numpy()
    value = _auroc(normal, defective)
    return out | {ORACLE: max(value, 1 - value)}


def text(described: pd.DataFrame) -> str:
    """The table of `describe` in Markdown, shares in percent, dashes for what is missing, its notes below."""
    shown = described.drop(columns="dataset").copy()
    for column in [c for c in shown if c.startswith("share")]:
        shown[column] = [_number(100 * v, 2) for v in shown[column]]
    shown = shown.rename(columns=lambda c: c.replace("share", "defect share [%]"))
    shown["grey"] = [_number(v, 1) for v in shown.grey]
    shown[ORACLE] = [_number(v, 3) for v in shown[ORACLE]]
    shown["official"] = [_number(v, 0) for v in shown.official]
    shown["category"] = shown.category.where(~shown.category.duplicated(), "")
    body = shown.to_markdown(index=False, disable_numparse=True)
    notes = "".join(f"- {note}\n" for note in described.attrs.get("notes", ()))
    return body + "\n" + ("\n" + notes if notes else "")


def _number(value, decimals: int) -> str:
    return "–" if pd.isna(value) else f"{value:.{decimals}f}"
