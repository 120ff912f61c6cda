"""Differences of an ablation's variants to its base: every seed, their mean and the paired interval."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adlib.figures.style import OTHERS, canvas, caption
from adlib.metrics import names as metric_names
from adlib.reports.ablation import spoken


def differences(table: pd.DataFrame, note: str = "") -> Figure:
    """A panel per metric, a row per variant, in percentage points; open circles are single seeds.

    table: rows of `reports.ablation.differences`: factor, variant, metric, difference, low, high, seeds in 0..1.
    """
    metrics = list(dict.fromkeys(table.metric))
    rows = list(dict.fromkeys(zip(table.factor, table.variant, strict=True)))
    names = [spoken(*row) for row in rows]
    with canvas(3.9 * len(metrics) + 1.5, 0.3 * len(rows) + 1.2) as fig:
        for ax, metric in zip(fig.subplots(1, len(metrics), squeeze=False, sharey=True)[0], metrics, strict=True):
            _panel(ax, table[table.metric == metric].set_index(["factor", "variant"]), rows)
            ax.set_xlabel(f"{metric_names.label(metric)}: variant minus base [points]")
            ax.set_yticks(range(len(rows)), names)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        told = "; ".join(
            f"{spoken(r.factor, r.variant)}, {metric_names.label(r.metric)} {100 * r.difference:+.1f}"
            for r in table.itertuples()
        )
        circles = " Open circles: single seeds." if any(len(seeds) > 1 for seeds in table.seeds) else ""
        text = (
            f"{note} Right of the line: better than the base. Dot: mean; bar: paired 95 % interval (bootstrap over test"
        )
        caption(fig, f"{text} images).{circles}", f"Differences to the base in points. {told}.")
    return fig


def _panel(ax, of_metric: pd.DataFrame, rows: list[tuple]) -> None:
    of_metric = of_metric.reindex(rows)
    value, low, high = (100 * of_metric[c].to_numpy(float) for c in ("difference", "low", "high"))
    bars = np.nan_to_num([value - low, high - value])
    ax.errorbar(value, range(len(rows)), xerr=np.clip(bars, 0, None), fmt="o", color=OTHERS[0], capsize=2)
    for place, seeds in enumerate(of_metric.seeds):
        if isinstance(seeds, list) and len(seeds) > 1:
            ax.plot(100 * np.array(seeds), [place + 0.22] * len(seeds), "o", mfc="none", mec=OTHERS[4], markersize=4)
    ax.axvline(0, color="black", linewidth=0.8)


def sweep(table: pd.DataFrame, x: str, note: str = "") -> Figure:
    """A panel per metric, its values against one setting: a circle per seed, a line through their means.

    table: index (value of the setting, seed), columns metrics, in percent. x: the setting's name, on the axis.
    """
    means = table.groupby(level=0).mean()
    with canvas(2.6 * len(table.columns), 2.6) as fig:
        for k, (ax, metric) in enumerate(
            zip(fig.subplots(1, len(table.columns), squeeze=False)[0], table.columns, strict=True)
        ):
            ax.plot(means.index, means[metric], "-", color=OTHERS[k % 6])
            places = table.index.get_level_values(0)
            ax.plot(places, table[metric], "o", mfc="none", mec=OTHERS[k % 6], markersize=4)
            ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
            ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3), useMathText=True)  # 0.0002 as 2 x 10^-4
            ax.set_xlabel(x)
            ax.set_ylabel(f"{metric_names.label(metric)} [%]")
        told = "; ".join(
            f"{metric_names.label(metric)} {values.iloc[0]:.1f} at the left end, {values.iloc[-1]:.1f} at the right, "
            f"highest at {values.idxmax():g}"
            for metric, values in means.items()
        )
        seeds = table.index.get_level_values(1).nunique()
        circles = "Circles: single seeds; line: their mean." if seeds > 1 else "One seed."
        caption(fig, f"{note} {circles}", f"Curves over {x}: {told}. {note}")
    return fig


def heatmaps(tables: dict[str, pd.DataFrame], note: str = "") -> Figure:
    """Tables of two factors beside each other, each with a colour scale of its own and its numbers, in percent.

    tables: {title: table}; the names of index and columns are the axes' labels.
    """
    rows, columns = next(iter(tables.values())).shape
    with canvas((0.62 * columns + 1.6) * len(tables), 0.38 * rows + 1.2) as fig:
        for ax, (title, table) in zip(fig.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
            sns.heatmap(table, annot=True, fmt=".1f", cmap="viridis", annot_kws={"fontsize": 8}, ax=ax)
            ax.set(title=title, xlabel=table.columns.name, ylabel=table.index.name)
            ax.tick_params(axis="y", rotation=0)
        told = "; ".join(_highest(title, table) for title, table in tables.items())
        caption(fig, note, f"Tables of numbers. {told}. {note}")
    return fig


def _highest(title: str, table: pd.DataFrame) -> str:
    """ "[P]: 4 x 6 values from 60.4 to 89.5, the highest at 0.75, E2D4"."""
    row, column = table.stack().idxmax()
    size = " x ".join(map(str, table.shape))
    low, high = table.to_numpy().min(), table.to_numpy().max()
    return f"{title}: {size} values from {low:.1f} to {high:.1f}, the highest at {row}, {column}"
