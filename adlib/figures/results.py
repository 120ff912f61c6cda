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
from adlib.figures.style import ANOMALOUS, NORMAL, OTHERS, PUBLISHED, canvas, caption, described
from adlib.metrics import names as metric_names

NOT_TERMS = ("epoch", "seconds", "total", "method", "dataset", "category", "seed", "hash")
TERM_COLOURS = {"p_true": NORMAL, "p_fake": ANOMALOUS}  # shares of normal and of synthetic rows beyond the margin
TERM_LABELS = {"p_true": "normal rows (p_true)", "p_fake": "noisy rows (p_fake)"}
AUROC = ("image_auroc", "pixel_auroc")
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
    ax.legend(fontsize=7, frameon=True, facecolor="white", edgecolor="none")  # a band may pass behind it


def training_curves(runs) -> Figure:
    """Loss, its logged terms, and, where the test set was looked at, the oracle's image AUROC, against the epoch."""
    head, history = described(runs), runs.history
    oracle = [c for c in history if c.endswith("(oracle)") and history[c].notna().any()]
    terms = [c for c in history if c not in (*NOT_TERMS, *oracle) and not c.startswith("lr") and "(oracle)" not in c]
    panels = [p for p in (["total"] if "total" in history else [], terms, oracle) if p]
    if not panels:
        raise UserError("these runs have no training curve: their system collects statistics in one pass")
    with canvas(11 if len(panels) == 3 else 4 * len(panels), 3) as fig:
        for ax, names in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            if names is terms:
                long = history.melt(["epoch"], terms, var_name="term").replace({"term": TERM_LABELS})
                curves(ax, long, "value", "term", {TERM_LABELS[name]: c for name, c in TERM_COLOURS.items()})
            else:
                curves(ax, history, names[0])
            ax.set_xlabel("epoch [passes over the training images]")
            ax.set_ylabel(_curve_label(names, terms))
        note = "Line: mean of the runs; band: one sd over seeds, for terms over seeds and categories."
        caption(fig, f"{head}. {note} Oracle: computed on test labels, never selects.")
    return fig


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
        caption(fig, f"{head}; shown: seed {seed}. Dashed: threshold from normal training images; above it: anomalous.")
    return fig


def _histogram(ax, run, category: str) -> None:
    scores = run.scores[run.scores.category == category]
    facts = run.record["per_category"][category]
    tau = facts["threshold"]["tau"]
    edges = np.histogram_bin_edges(np.append(scores.score, tau), bins=30)
    for label, name, colour, hatch in ((0, "normal", NORMAL, None), (1, "anomalous", ANOMALOUS, "///")):
        values = scores.score[scores.label == label]
        style = {"color": colour, "edgecolor": colour, "hatch": hatch, "alpha": 0.45}
        sns.histplot(values, bins=edges, label=f"{name} (n={len(values)})", ax=ax, **style)
    ax.axvline(tau, color="black", linestyle="--", linewidth=1, label=f"threshold {tau:.3g}")
    ax.set_title(f"{category}: image AUROC {100 * facts['metrics']['image_auroc']:.1f} %")
    ax.set_xlabel("image anomaly score [score units]")
    ax.set_ylabel("test images")
    ax.set_ylim(top=1.35 * ax.get_ylim()[1])  # room for the legend above the bars
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=7)


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
        ax.set_xlabel("speed [images / s], log scale")
        ax.set_ylabel("image AUROC [%]")
        ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
        caption(fig, f"{note} Filled: measured here, bar: 95 % interval; hollow or dotted: published, other hardware.")
    return fig


def _speed_point(ax, row, colour: str, k: int) -> None:
    label = f"{row.system}, {row.what.replace('_', ' ')}"
    if pd.isna(row.image_auroc):
        ax.axvline(row.fps, color="#666666", linestyle=":", label=f"{label}: {row.fps:g}/s")
        return
    y, marker = 100 * row.image_auroc, {"network": "o", "end_to_end": "s"}.get(row.what, "D")
    bars = None if pd.isna(row.low) else [[y - 100 * row.low], [100 * row.high - y]]
    style = PUBLISHED if row.what == "published" else {"color": colour}
    ax.errorbar(row.fps, y, bars, fmt=marker, capsize=2, label=f"{label}: {row.fps:.3g}/s", **style)


def compare(runs, published: pd.DataFrame | None = None) -> Figure:
    """Published (hollow) beside measured (filled, 95 % interval) per category, image and pixel AUROC.

    published: `published.verdict(...)`; its numbers are drawn only for the data set that was run.
    """
    head, table = described(runs), runs.metrics
    names = [m for m in AUROC if m in set(table.metric)]
    datasets = set(table.dataset)
    cells = published[published.dataset.isin(datasets)] if published is not None else None
    categories = list(dict.fromkeys(table.category))
    with canvas(4.6 * len(names), 0.32 * len(categories) + 1.4) as fig:
        for ax, metric in zip(fig.subplots(1, len(names), squeeze=False, sharey=True)[0], names, strict=True):
            _compare_panel(ax, table[table.metric == metric], cells, metric, categories)
            ax.set_xlabel(metric_names.axis_label(metric))
        ax.set_ylim(len(categories) - 0.5, -0.5)
        none = cells is None or not len(cells)
        text = f"No published number exists for {', '.join(sorted(datasets))}." if none else "Hollow: published."
        caption(fig, f"{head}. Filled: measured here, mean over seeds with 95 % interval. {text}")
    return fig


def _compare_panel(ax, table: pd.DataFrame, cells, metric: str, categories: list[str]) -> None:
    ours = table.drop_duplicates("category").set_index("category").reindex(categories)
    places, mean = np.arange(len(categories)), 100 * ours["mean"].to_numpy()
    bars = [np.nan_to_num(mean - 100 * ours.low.to_numpy()), np.nan_to_num(100 * ours.high.to_numpy() - mean)]
    ax.errorbar(mean, places, xerr=np.clip(bars, 0, None), fmt="o", color=OTHERS[0], capsize=2, label="ours")
    if cells is not None and len(cells):
        printed = cells[cells.metric == metric].drop_duplicates("category").set_index("category").published
        ax.plot(100 * printed.reindex(categories), places, "D", label="published", linestyle="none", **PUBLISHED)
    ax.set_yticks(places, categories)
    ax.legend(fontsize=7)


def differences(table: pd.DataFrame, note: str = "") -> Figure:
    """Ablation: each variant's difference to the base with its paired 95 % interval, one factor below the other.

    table columns: factor, variant, and metric, difference, low, high in points of 0..1 (drawn in percentage points).
    """
    metrics = list(dict.fromkeys(table.metric))
    rows = list(dict.fromkeys(zip(table.factor, table.variant, strict=True)))
    with canvas(4.4 * len(metrics) + 1, 0.3 * len(rows) + 1.3) as fig:
        for ax, metric in zip(fig.subplots(1, len(metrics), squeeze=False, sharey=True)[0], metrics, strict=True):
            of_metric = table[table.metric == metric].set_index(["factor", "variant"]).reindex(rows)
            value = 100 * of_metric.difference.to_numpy()
            bars = np.nan_to_num([value - 100 * of_metric.low.to_numpy(), 100 * of_metric.high.to_numpy() - value])
            ax.errorbar(value, range(len(rows)), xerr=np.clip(bars, 0, None), fmt="o", color=OTHERS[0], capsize=2)
            ax.axvline(0, color="black", linewidth=0.8)
            ax.set_xlabel(f"{metric_names.label(metric)}: variant minus base [points]")
            ax.set_yticks(range(len(rows)), [_row_name(*row) for row in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        caption(fig, f"{note} Right of the line: better than the base. Bars: paired 95 % interval over test images.")
    return fig


def _row_name(factor: str, variant: str) -> str:
    """ "epochs=10", where the variant names its factor; else both: "noise: noise_std=0.05"."""
    if variant.startswith(f"{factor}="):
        return variant
    return f"{factor}: {variant}"


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
        ax.legend(fontsize=7)
        caption(fig, note)
    return fig


def grids(planes: dict[str, np.ndarray], note: str = "", columns: int = 5) -> Figure:
    """Small pictures beside each other: {title: [h,w] (viridis, a scale each) or uint8 [h,w,3]}, e.g. features."""
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
        caption(fig, note)
    return fig


def lines(x, curves: dict[str, np.ndarray], xlabel: str, ylabel: str, note: str = "") -> Figure:
    """Curves over a common axis, each with its own line style: for the formulae of a paper."""
    with canvas(5.2, 3) as fig:
        ax = fig.subplots()
        for k, (name, y) in enumerate(curves.items()):
            ax.plot(x, y, ("-", "--", "-.", ":")[k % 4], color=OTHERS[k % 6], label=name)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        ax.legend(fontsize=7)
        caption(fig, note)
    return fig
