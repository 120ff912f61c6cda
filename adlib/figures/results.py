"""Pictures of results: training curves, score histograms, published against measured, speed, ablations, formulae.

Each function returns a matplotlib figure of fixed size with its caption; `save` writes PNG and PDF, the same bytes for
the same figure. A `runs` argument is `adlib.runs.Runs`, or iterates over runs and has `.metrics` and `.history`.
"""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from adlib.common.errors import UserError
from adlib.figures.style import (
    ANOMALOUS,
    APART,
    NORMAL,
    OTHERS,
    PUBLISHED,
    canvas,
    caption,
    described,
    legend_above,
    spread,
    to_hundred,
)
from adlib.metrics import names as metric_names
from adlib.reports.measured import interval_words

NOT_TERMS = ("epoch", "seconds", "total", "method", "dataset", "category", "seed", "hash")
NO_TERM = ("lr", "lost_")  # how the other columns begin that are no terms of the loss
TERM_COLOURS = {"p_true": NORMAL, "p_fake": ANOMALOUS}  # shares of normal and of synthetic rows beyond the margin
TERM_LABELS = {"p_true": "normal rows (p_true)", "p_fake": "noisy rows (p_fake)"}
AUROC = ("image_auroc", "pixel_auroc")
NOT_COMPARABLE = "published, not comparable"
FACTOR = 100  # between loss terms from which on their axis is logarithmic
MOST = 6  # colours that readers tell apart: more categories are drawn as one mean


def curves(ax, history: pd.DataFrame, y: str, hue: str = "category", colours: dict[str, str] | None = None) -> None:
    """Mean of the runs against the epoch with a band of one sd, a line per value of `hue` (over six: one for all).

    history: columns epoch, y and hue, NaN where nothing was measured. colours: {value of hue: colour}.
    """
    shown = history[history[y].notna()]
    names = list(dict.fromkeys(shown[hue]))
    options = {"hue": hue, "style": hue, "palette": {name: OTHERS[k % MOST] for k, name in enumerate(names)}}
    if colours:
        options["palette"] |= {name: colour for name, colour in colours.items() if name in names}
    elif len(names) > MOST:
        options = {"label": "mean of all", "color": OTHERS[0]}
    if shown["epoch"].nunique() < 3:  # too few for a line to be seen
        options |= {"marker": "o"}
    # errorbar "sd" needs no random resampling: equal runs give equal bytes
    sns.lineplot(shown, x="epoch", y=y, errorbar="sd", linewidth=1.6, ax=ax, **options)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(ax)


def training_curves(runs) -> Figure:
    """Loss, its logged terms, and, where the test set was looked at, the oracle's image AUROC, against the epoch."""
    head, history = described(runs), runs.history
    oracle = [c for c in history if c.endswith("(oracle)") and history[c].notna().any()]
    terms = [c for c in history if c not in (*NOT_TERMS, *oracle) and not c.startswith(NO_TERM) and "(oracle)" not in c]
    panels = [p for p in (["total"] if "total" in history else [], terms, oracle) if p]
    if not panels:
        raise UserError("these runs have no training curve: their system collects statistics in one pass")
    with canvas(11 if len(panels) == 3 else 4 * len(panels), 3) as fig:
        for ax, names in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            if names is terms:
                long = history.melt(["epoch"], terms, var_name="term").replace({"term": TERM_LABELS})
                curves(ax, long, "value", "term", {TERM_LABELS[name]: c for name, c in TERM_COLOURS.items()})
                means = long.groupby("term").value.mean()
                if (long.value.dropna() > 0).all() and means.max() > FACTOR * means.min():
                    ax.set_yscale("log")
            else:
                curves(ax, history, names[0])
            if names is oracle:
                ax.set_ylim(top=1)
            ax.set_xlabel("epoch [passes over the training images]")
            ax.set_ylabel(_curve_label(names, terms))
        note = "Line: mean of the runs; band: one sd over seeds, for terms over seeds and categories."
        text = f"{head}. {note}" + (" Oracle: computed on test labels, never selects." if oracle else "")
        told = "; ".join(_course(history, _curve_name(name), name) for names in panels for name in names)
        caption(fig, text, f"Curves over {history.epoch.max()} epochs of {head}: {told}.")
    return fig


def _course(history: pd.DataFrame, name: str, column: str) -> str:
    """ "training loss from 0.98 to 0.31": means of the runs at the first and at the last epoch with a value."""
    means = history[history[column].notna()].groupby("epoch")[column].mean()
    if len(means) == 1:
        return f"{name} {means.iloc[0]:.3g} at the last epoch"
    return f"{name} from {means.iloc[0]:.3g} to {means.iloc[-1]:.3g}"


def _curve_name(column: str) -> str:
    known = {"total": "training loss", "image_auroc (oracle)": "image AUROC of the test set"}
    return known.get(column) or TERM_LABELS.get(column, column)


def _curve_label(names: list[str], terms: list[str]) -> str:
    if names is terms:
        return "share of rows beyond the margin" if set(names) <= set(TERM_COLOURS) else "loss terms"
    return {"total": "training loss"}.get(names[0], names[0].replace("image_auroc", "image AUROC of the test set"))


def _first_seed(runs) -> list[tuple]:
    """(run, category) of the lowest seed for each category: scores of several seeds are on different scales."""
    first: dict[tuple, tuple] = {}
    for run in sorted(runs, key=lambda r: r.record["seed"]):
        for category in run.record["per_category"]:
            first.setdefault((run.record["dataset"], category), (run, category))
    return list(first.values())


def score_histograms(runs) -> Figure:
    """Image scores of normal and anomalous test images and the normal-only threshold, a panel per category."""
    head, panels = described(runs), _first_seed(runs)
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    with canvas(3.7 * columns + 0.3, 2.6 * rows + 0.2) as fig:
        axes = fig.subplots(rows, columns, squeeze=False).ravel()
        for ax, (run, category) in zip(axes, panels, strict=False):
            _histogram(ax, run, category)
        for ax in axes[len(panels) :]:
            ax.axis("off")
        seed = panels[0][0].record["seed"]
        several = " (another seed has another scale)" if len({run.record["seed"] for run in runs}) > 1 else ""
        text = f"{head}. Shown: seed {seed}{several}. Dashed: the threshold, from normal training images alone."
        told = "; ".join(_heaps(run, category) for run, category in panels)
        caption(fig, f"{text} A score above it is called anomalous.", f"Histograms of image scores. {told}.")
    return fig


def _heaps(run, category: str) -> str:
    """How far the two histograms of a category lie apart, and on which side of the threshold."""
    scores = run.scores[run.scores.category == category]
    tau = run.record["per_category"][category]["threshold"]["tau"]
    normal, anomalous = (scores.score[scores.label == label] for label in (0, 1))
    return (
        f"{run.record['dataset']} {category}: {len(normal)} normal scores, {spread(normal)}, of which "
        f"{(normal > tau).sum()} lie above the threshold {tau:.3g}; {len(anomalous)} anomalous scores, "
        f"{spread(anomalous)}, of which {(anomalous <= tau).sum()} do not"
    )


def _histogram(ax, run, category: str) -> None:
    scores = run.scores[run.scores.category == category]
    facts = run.record["per_category"][category]
    tau = facts["threshold"]["tau"]
    edges = np.histogram_bin_edges(np.append(scores.score, tau), bins=30)
    for label, name, colour, hatch in ((0, "normal", NORMAL, None), (1, "anomalous", ANOMALOUS, "///")):
        values = scores.score[scores.label == label]
        style = {"color": colour, "edgecolor": colour, "hatch": hatch, "alpha": 0.45}
        sns.histplot(values, bins=edges, label=f"{name} (n={len(values)})", ax=ax, **style)
    # the legend's place is above the bars and above the end of the line
    ax.axvline(tau, ymax=0.7, color="black", linestyle="--", linewidth=1, label=f"threshold {tau:.3g}")
    ax.set_title(f"{category}: image AUROC {100 * facts['metrics']['image_auroc']:.1f} %")
    ax.set_xlabel("image anomaly score [score units]")
    ax.set_ylabel("test images")
    ax.set_ylim(top=1.4 * ax.get_ylim()[1])
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5))  # long numbers would touch
    ax.legend(fontsize=7, loc="upper center", ncols=2, borderaxespad=0.2)


def speed_against_auroc(table: pd.DataFrame, note: str = "") -> Figure:
    """Frames per second (log axis) against image AUROC.

    table columns: system, what ("network", "end_to_end" or "published"), fps, image_auroc in 0..1 (NaN: a published
    speed without a comparable AUROC, drawn as a vertical line), low, high. note: data, device, threads.
    """
    with canvas(8, 3.4) as fig:
        ax = fig.subplots()
        for k, row in enumerate(table.itertuples(index=False)):
            _speed_point(ax, row, OTHERS[list(dict.fromkeys(table.system)).index(row.system) % 6], k)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.margins(x=0.2, y=0.2)
        to_hundred(ax.yaxis, table[["image_auroc", "low"]])
        ax.set_xlabel("speed [images / s], log scale")
        ax.set_ylabel("image AUROC [%]")
        ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
        quoted = " Hollow or dotted: published, other hardware." if (table.what == "published").any() else ""
        told = "; ".join(_speed_words(row) for row in table.itertuples(index=False))
        text = f"{note} Filled: measured here; bar: 95 % interval over test images.{quoted}"
        caption(fig, text, f"Speed against image AUROC. {told}.")
    return fig


def _speed_words(row) -> str:
    auroc = "no comparable AUROC" if pd.isna(row.image_auroc) else f"image AUROC {100 * row.image_auroc:.1f} %"
    return f"{row.system}, {row.what.replace('_', ' ')}: {row.fps:.3g} images a second, {auroc}"


def _speed_point(ax, row, colour: str, k: int) -> None:
    label = f"{row.system}, {row.what.replace('_', ' ')}"
    if pd.isna(row.image_auroc):
        ax.axvline(row.fps, color="#666666", linestyle=":", label=f"{label}: {row.fps:g}/s")
        return
    y, marker = 100 * row.image_auroc, {"network": "o", "end_to_end": "s"}.get(row.what, "D")
    bars = None if pd.isna(row.low) else [[y - 100 * row.low], [100 * row.high - y]]
    style = PUBLISHED if row.what == "published" else {"color": colour}
    ax.errorbar(row.fps, y, bars, fmt=marker, capsize=2, label=f"{label}: {row.fps:.3g}/s", clip_on=False, **style)


def compare(runs, published: pd.DataFrame | None = None) -> Figure:
    """Published (hollow) beside measured (filled, 95 % interval) per category, image and pixel AUROC.

    published: `verdict.verdict(...)`; its numbers are drawn only for the data set that was run. One that the verdict
    calls "not comparable" is lighter and below its row, so that it does not look as if it agreed or disagreed.
    """
    head, table = described(runs), runs.metrics
    names = [m for m in AUROC if m in set(table.metric)]
    categories = list(dict.fromkeys(table.category))
    printed = _printed(published, table, names, categories)
    handles: dict[str, object] = {}
    with canvas(4.6 * len(names), 0.4 * len(categories) + 1.6) as fig:
        for ax, metric in zip(fig.subplots(1, len(names), squeeze=False, sharey=True)[0], names, strict=True):
            _compare_panel(ax, table[table.metric == metric], printed[printed.metric == metric], categories)
            ax.set_xlabel(metric_names.axis_label(metric))
            found, labels = ax.get_legend_handles_labels()
            handles |= dict(zip(labels, found, strict=True))
        ax.set_ylim(len(categories) - 0.4, -0.5)
        labels = sorted(handles, key=lambda label: label != "ours")
        fig.legend([handles[k] for k in labels], labels, loc="outside upper center", ncols=len(labels), fontsize=8)
        drawn = table[table.metric.isin(names)]
        text = f"{head}. Filled: mean over seeds; bar: {interval_words(drawn.interval_method)}."
        told = "; ".join(_compared(row, printed) for row in drawn.itertuples())
        words = "" if published is None else _printed_words(printed, table)
        caption(fig, f"{text} {words}".strip(), f"Measured AUROC. {told}.")
    return fig


def _printed(published, table: pd.DataFrame, names: list[str], categories: list[str]) -> pd.DataFrame:
    """The published numbers that have a place in the figure: metric, category, published (0..1), comparable."""
    columns = ["metric", "category", "published", "comparable"]
    if published is None:
        return pd.DataFrame(columns=columns)
    cells = published[published.dataset.isin(set(table.dataset)) & published.published.notna()]
    cells = cells[cells.metric.isin(names) & cells.category.isin(categories)]
    comparable = cells.verdict != "not comparable" if "verdict" in cells else True
    return cells.assign(comparable=comparable).drop_duplicates(["metric", "category"])[columns]


def _printed_words(printed: pd.DataFrame, table: pd.DataFrame) -> str:
    if not len(printed):
        return f"The paper has no number for {', '.join(sorted(set(table.dataset)))} ({_some(table.category)})."
    sentences = ["Hollow: published."] if printed.comparable.any() else []
    if not printed.comparable.all():
        sentences.append("Light, below its row: published in another setting, not comparable with the bar.")
    return " ".join(sentences)


def _some(names) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} categories"


def _compared(row, printed: pd.DataFrame) -> str:
    """One measured value in words, with the published one where there is one."""
    words = f"{row.category}, {metric_names.label(row.metric)} {100 * row.mean:.1f} %"
    if not pd.isna(row.low):
        words += f" [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    for cell in printed[(printed.metric == row.metric) & (printed.category == row.category)].itertuples():
        words += f", published {100 * cell.published:.1f} %" + ("" if cell.comparable else ", not comparable")
    return words


def _compare_panel(ax, table: pd.DataFrame, printed: pd.DataFrame, categories: list[str]) -> None:
    ours = table.drop_duplicates("category").set_index("category").reindex(categories)
    places, mean = np.arange(len(categories)), 100 * ours["mean"].to_numpy()
    bars = [np.nan_to_num(mean - 100 * ours.low.to_numpy()), np.nan_to_num(100 * ours.high.to_numpy() - mean)]
    style = {"color": OTHERS[0], "capsize": 2, "clip_on": False}
    ax.errorbar(mean, places, xerr=np.clip(bars, 0, None), fmt="o", label="ours", **style)
    row = dict(zip(categories, places, strict=True))
    for comparable, look, label, shift in ((True, PUBLISHED, "published", 0), (False, APART, NOT_COMPARABLE, 0.3)):
        cells = printed[printed.comparable == comparable]
        if len(cells):
            at = [row[category] + shift for category in cells.category]
            ax.plot(100 * cells.published, at, "D", label=label, linestyle="none", clip_on=False, **look)
    to_hundred(ax.xaxis, pd.concat([ours[["mean", "low"]], printed.published], axis=1))
    ax.set_yticks(places, categories)


def feature_cloud(normal: np.ndarray, noisy: np.ndarray, note: str = "") -> Figure:
    """Normal rows [N,D] and the same rows with noise in the plane of the normal rows' two principal components."""
    normal, noisy = np.asarray(normal, float), np.asarray(noisy, float)
    centre = normal.mean(0)
    _, _, axes = np.linalg.svd(normal - centre, full_matrices=False)
    # the sign of a singular vector is arbitrary: fixed, so that the picture is the same on every machine
    plane = axes[:2] * np.sign(axes[:2, np.abs(axes[:2]).argmax(1)].diagonal())[:, None]
    with canvas(5.2, 3.8) as fig:
        ax = fig.subplots()
        for rows, colour, marker, name in ((noisy, ANOMALOUS, "x", "with noise"), (normal, NORMAL, "o", "normal")):
            x, y = ((rows - centre) @ plane.T).T
            ax.scatter(x, y, s=9, c=colour, marker=marker, alpha=0.6, linewidths=0.8, label=f"{name} (n={len(rows)})")
        ax.set_xlabel("first principal component [feature units]")
        ax.set_ylabel("second [feature units]")
        legend_above(ax)
        inner, outer = (((rows - centre) @ plane.T).std(0) for rows in (normal, noisy))
        told = f"{len(normal)} normal rows have a standard deviation of {inner[0]:.2g} along the first component and "
        told += f"{inner[1]:.2g} along the second; {len(noisy)} rows with noise have {outer[0]:.2g} and {outer[1]:.2g}"
        caption(fig, note, f"Two clouds of points: {told}. {note}")
    return fig


def grids(planes: dict[str, np.ndarray], note: str = "", columns: int = 5, alt: str = "") -> Figure:
    """Small pictures beside each other: {title: [h,w] (viridis, a scale each) or uint8 [h,w,3]}, e.g. features.

    alt: what one sees in them; default: names and ranges of the planes.
    """
    columns = min(columns, len(planes))
    rows = -(-len(planes) // columns)
    with canvas(2.1 * columns, 1.9 * rows) as fig:
        axes = fig.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes:
            ax.axis("off")
        for ax, (title, plane) in zip(axes, planes.items(), strict=False):
            shown = ax.imshow(plane, cmap="viridis", interpolation="nearest")
            ax.set_title(title)
            if np.size(plane) <= 25:  # a hand example: the numbers themselves
                for (y, x), value in np.ndenumerate(plane):
                    ax.text(
                        x, y, f"{value:.3g}", ha="center", va="center", bbox={"fc": "white", "ec": "none", "pad": 1}
                    )
            if np.ndim(plane) == 2:
                fig.colorbar(shown, ax=ax, shrink=0.75).ax.tick_params(labelsize=7)
        caption(fig, note, alt or f"{'; '.join(_plane(*item) for item in planes.items())}. {note}")
    return fig


def _plane(title: str, plane: np.ndarray) -> str:
    """ "grid: 16 x 16 values from -0.31 to 1.2, the largest in row 4, column 9"; a colour picture by its size."""
    plane = np.asarray(plane)
    if plane.ndim == 3:
        return f"{title}: a picture of {plane.shape[1]} x {plane.shape[0]} pixels"
    row, column = np.unravel_index(plane.argmax(), plane.shape)
    values = f"{plane.shape[0]} x {plane.shape[1]} values from {plane.min():.3g} to {plane.max():.3g}"
    return f"{title}: {values}, the largest in row {row}, column {column}"


def lines(x, curves: dict[str, np.ndarray], xlabel: str, ylabel: str, note: str = "", alt: str = "") -> Figure:
    """Curves over a common axis, each with its own line style: for the formulae of a paper.

    alt: what one sees; default: each curve's first, lowest, highest and last value.
    """
    with canvas(5.2, 3) as fig:
        ax = fig.subplots()
        for k, (name, y) in enumerate(curves.items()):
            ax.plot(x, y, ("-", "--", "-.", ":")[k % 4], color=OTHERS[k % 6], label=name)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        legend_above(ax)
        told = "; ".join(_line_words(name, np.asarray(y, float)) for name, y in curves.items())
        caption(fig, note, alt or f"Curves of {ylabel} over {xlabel}. {told}. {note}")
    return fig


def _line_words(name: str, y: np.ndarray) -> str:
    return f"{name}: {y[0]:.3g} at the left end, {y[-1]:.3g} at the right, between {y.min():.3g} and {y.max():.3g}"
