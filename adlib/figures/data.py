"""Pictures of a data set, before any detector: examples with outlined defects, defect sizes, brightness, its AUROC.

All but `examples` draw tables of `adlib.data.inspection.describe`. Normal is blue, anomalous vermilion, as everywhere.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from PIL import Image

from adlib import images
from adlib.common.errors import UserError
from adlib.data.inspection.describe import GROUPS, KEY
from adlib.figures.style import ANOMALOUS, NORMAL, OTHERS, canvas, caption

COLOURS = dict(zip(GROUPS, ("#949494", NORMAL, ANOMALOUS), strict=True))
CELL = 1 / 256  # share of the image: one cell of a 16 x 16 feature map (a side of 256 at stride 16)
LEAST = 1e-6  # share drawn for an empty mask, which a logarithmic axis cannot hold


def examples(table: pd.DataFrame, side: int = 192, columns: int = 6) -> Figure:
    """The first normal test image and the first of each kind of defect, masks outlined; longer side `side` pixels.

    The outline runs around every pixel that holds a part of the defect. Pictures keep their aspect ratio.
    """
    test = table[table.split == "test"]
    normal = test[test.label == 0] if (test.label == 0).any() else table[table.label == 0]
    shown = pd.concat([normal.head(1), test[test.label == 1].drop_duplicates("defect").sort_values("defect")])
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    with canvas(1.55 * columns, 1.8 * rows) as fig:
        axes = fig.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes:
            ax.axis("off")
        for ax, row in zip(axes, shown.itertuples(), strict=False):
            _example(ax, row, table.attrs.get("mask_threshold", 0), side)
        outline = "outlined: the mask" if shown["mask"].notna().any() else "no masks"
        kinds = [row.defect.replace("_", " ") for row in shown.itertuples()]
        alt = (
            f"{len(shown)} pictures of {_name(table.attrs)}: {', '.join(kinds)}; {shown['mask'].notna().sum()} of them"
        )
        text = f"{_name(table.attrs)}: first image of each kind, {side} px; {outline}."
        caption(fig, text, f"{alt} with the outline of the defect.")
    return fig


def _example(ax, row, threshold: int, side: int) -> None:
    picture = Image.fromarray(images.decode(row.path))
    width, height = (max(1, round(side * n / max(picture.size))) for n in picture.size)
    ax.imshow(picture.resize((width, height), Image.Resampling.BILINEAR), interpolation="nearest")
    ax.set_title(row.defect.replace("_", " "), color=(NORMAL, ANOMALOUS)[row.label], fontsize=8)
    if isinstance(row.mask, str):
        _outline(ax, np.asarray(Image.fromarray(images.decode(row.mask)).convert("L")) > threshold, (width, height))
    # every picture in the middle of an equal square, with room for an outline along its border
    ax.set_xlim((width - side) / 2 - 2, (width + side) / 2 + 1)
    ax.set_ylim((height + side) / 2 + 1, (height - side) / 2 - 2)


def _outline(ax, mask: np.ndarray, size: tuple[int, int]) -> None:
    cover = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    level = np.pad(np.asarray(cover) > 0, 1).astype(float)  # padded: an outline also along the border
    at = np.arange(-1, size[0] + 1), np.arange(-1, size[1] + 1)
    for colour, width in (("white", 2.2), (ANOMALOUS, 1.0)):
        if level.any():
            ax.contour(*at, level, [0.5], colors=[colour], linewidths=width)


def _name(attrs: dict) -> str:
    return (
        attrs["dataset"]
        if attrs["category"] in ("all", attrs["dataset"])
        else f"{attrs['dataset']} {attrs['category']}"
    )


def defect_sizes(measured: pd.DataFrame) -> Figure:
    """Share of the image that is anomalous, a row per category: each image a dot, median and middle 80 % as a bar."""
    known = measured[measured.share.notna()]
    if known.empty:
        raise UserError("no image of these data has a mask; defect sizes are known where masks are (textures has them)")
    groups = list(known.groupby(KEY, sort=False))
    with canvas(8, 0.38 * len(groups) + 1) as fig:
        ax = fig.subplots()
        for y, (_, rows) in enumerate(groups):
            share = rows.share.clip(lower=LEAST).to_numpy()
            spread = 0.28 * (2 * ((np.arange(len(share)) * 0.6180339887) % 1) - 1)  # even, and the same every time
            ax.plot(100 * share, y + spread, ".", color=ANOMALOUS, markersize=4.5, alpha=0.5, markeredgewidth=0)
            low, middle, high = 100 * np.quantile(share, [0.1, 0.5, 0.9])
            ax.plot([low, high], [y, y], color="black", linewidth=1.2)
            ax.plot(middle, y, "D", color="black", markersize=4)
        ax.axvline(100 * CELL, color="#444444", linestyle="--", linewidth=0.8)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_major_locator(LogLocator())
        ax.set_xlabel("defective part of the image [% of its pixels], log scale")
        _rows(ax, [f"{' '.join(key)} (n={len(rows)})" for key, rows in groups])
        caption(
            fig,
            f"{len(known)} images with a mask. Dot: one image; diamond: median; bar: the middle 80 %. Dashed: one cell"
            " of a 16 x 16 feature map.",
            f"Defect sizes on a log axis, a row per category. {'; '.join(_sizes(*group) for group in groups)}.",
        )
    return fig


def _sizes(key: tuple, rows: pd.DataFrame) -> str:
    below = (rows.share < CELL).sum()
    return (
        f"{' '.join(key)}: median {100 * rows.share.median():.2g} % of the image, {below} of {len(rows)} below a cell"
    )


def _rows(ax, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)


def brightness(measured: pd.DataFrame, columns: int = 3) -> Figure:
    """Mean grey of normal training, normal test and defective images: a panel of histograms per category."""
    groups = list(measured.groupby(KEY, sort=False))
    columns = min(columns, len(groups))
    rows = -(-len(groups) // columns)
    with canvas(3.1 * columns + 0.2, 2.1 * rows + 0.4) as fig:
        axes = fig.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(groups) :]:
            ax.axis("off")
        for ax, (key, images_of) in zip(axes, groups, strict=False):
            _histograms(ax, images_of)
            ax.set_title(" ".join(key))
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)
        caption(
            fig,
            f"{len(measured)} images; each curve is a share of its own group. Grey: mean over all pixels of the full"
            " image.",
            f"Histograms of mean grey. {'; '.join(_greys(*group) for group in groups)}.",
        )
    return fig


def _greys(key: tuple, measured: pd.DataFrame) -> str:
    medians = measured.groupby("group").grey.median().reindex(GROUPS).dropna()
    return f"{' '.join(key)}: median {', '.join(f'{value:.0f} of {group}' for group, value in medians.items())}"


def _histograms(ax, measured: pd.DataFrame) -> None:
    fewest = min(measured.group.value_counts())
    edges = np.histogram_bin_edges(measured.grey, bins=int(np.clip(2 * np.sqrt(fewest), 8, 25)))
    for group in GROUPS:
        values = measured.grey[measured.group == group]
        style = {"histtype": "step", "linewidth": 1.5, "linestyle": "--" if group == GROUPS[2] else "-"}
        if group == GROUPS[0]:
            style = {"histtype": "stepfilled", "alpha": 0.45}
        weights = np.full(len(values), 100 / max(len(values), 1))
        ax.hist(values, edges, weights=weights, color=COLOURS[group], label=group, **style)
    ax.set_xlabel("mean grey [0 to 255]")
    ax.set_ylabel("images [% of group]")


def grey_auroc(shortcuts: pd.DataFrame) -> Figure:
    """What brightness alone reaches, a row per category of `describe.shortcuts`: oracle with interval, and distance."""
    with canvas(8, 0.42 * len(shortcuts) + 1.3) as fig:
        ax = fig.subplots()
        y = np.arange(len(shortcuts))
        ax.hlines(y, 0, 1, color="#dddddd", linewidth=0.6, zorder=0)
        bars = np.clip([shortcuts.auroc - shortcuts.low, shortcuts.high - shortcuts.auroc], 0, None)
        whole = {"clip_on": False}  # a marker at 0 or 1 is drawn whole
        ax.errorbar(shortcuts.auroc, y, xerr=bars, fmt="o", color=OTHERS[0], capsize=2, label="oracle", **whole)
        distance = _hollow(OTHERS[1]) | whole
        ax.plot(shortcuts.distance, y + 0.22, "s", label="distance from the training median", **distance)
        drift = {"color": "black", "markersize": 10, "markeredgewidth": 2.2} | whole
        ax.plot(shortcuts.drift, y - 0.24, "|", label="drift: normal test against normal train", ls="none", **drift)
        ax.axvline(0.5, color="black", linewidth=0.8, linestyle="--")
        ax.set_xlim(0, 1)
        ax.set_xlabel("AUROC of the mean grey; 0.5: no information")
        _rows(ax, [f"{r.dataset} {r.category}" for r in shortcuts.itertuples()])
        lines, labels = ax.get_legend_handles_labels()
        order = np.argsort(["oracle" not in label for label in labels], kind="stable")
        fig.legend([lines[k] for k in order], [labels[k] for k in order], loc="outside upper center", ncols=3)
        told = "; ".join(
            f"{r.dataset} {r.category}: oracle {r.auroc:.2f}, distance {r.distance:.2f}, drift {r.drift:.2f}"
            for r in shortcuts.itertuples()
        )
        caption(
            fig,
            f"{shortcuts.n_normal.sum() + shortcuts.n_defective.sum()} test images. Oracle: defective against normal,"
            " better direction chosen by the labels; bar: 95 % interval in that direction.",
            f"AUROC of the mean grey, a row per category. {told}.",
        )
    return fig


def _hollow(colour: str) -> dict:
    face = {"markerfacecolor": "white", "markeredgecolor": colour, "markeredgewidth": 1.3}
    return face | {"color": colour, "linestyle": "none", "markersize": 6}
