"""Pictures of normalizing flows: points on their way to a normal distribution, learnt densities, ROC curves by kind."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from adlib.figures.style import ANOMALOUS, NORMAL, OTHERS, canvas, caption

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))  # so that curves are told apart without colour
ASIDE = "#949494"


def beats(steps: dict[str, np.ndarray], marked: np.ndarray, note: str, columns: int = 4) -> Figure:
    """Points after each step of a flow in two dimensions, one panel each.

    steps: {title: [N,2]}, the same points in the same order. marked: bool [N], points in the second colour. A circle of
    radius 2 holds 86 % of a standard normal distribution in two dimensions.
    """
    rows = -(-len(steps) // columns)
    with canvas(2.2 * columns, 2.3 * rows) as fig:
        axes = list(fig.subplots(rows, columns, squeeze=False).flat)
        for ax, (title, points) in zip(axes, steps.items(), strict=False):
            for chosen, colour, shape in ((~marked, NORMAL, "o"), (marked, ANOMALOUS, "^")):
                ax.scatter(*points[chosen].T, s=5, color=colour, marker=shape, alpha=0.6, linewidths=0)
            turn = np.linspace(0, 2 * np.pi, 100)
            ax.plot(2 * np.cos(turn), 2 * np.sin(turn), color="#333333", linewidth=0.8)
            ax.set(title=title, xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), aspect="equal")
            ax.set_xlabel("first channel")
            ax.set_ylabel("second channel")
        for ax in axes[len(steps) :]:
            ax.axis("off")
        inside = {t: np.mean(np.linalg.norm(p, axis=1) < 2) for t, p in steps.items()}
        first, last = next(iter(inside)), list(inside)[-1]
        text = f"{note} Circle: radius 2. Triangles: one of two groups, to follow it by eye."
        alt = (
            f"{len(steps)} scatter plots of the same {len(marked)} points: {', '.join(steps)}. Inside the circle of "
            f"radius 2 lie {100 * inside[first]:.0f} % at the start and {100 * inside[last]:.0f} % at the end."
        )
        caption(fig, text, alt)
    return fig


def density(grid: np.ndarray, extent: float, points: np.ndarray, note: str) -> Figure:
    """A density on a square around the origin, the points it was learnt from, and how much of it lies in the square.

    grid: [S,S] density per unit of area, rows from the lower end of the second channel; extent: half the side.
    """
    with canvas(4.6, 3.8) as fig:
        ax = fig.subplots()
        drawn = ax.imshow(grid, origin="lower", extent=2 * (-extent, extent), cmap="viridis")
        ax.scatter(*points.T, s=3, color="white", alpha=0.5, linewidths=0)
        ax.set(xlabel="first channel", ylabel="second channel", xlim=(-extent, extent), ylim=(-extent, extent))
        fig.colorbar(drawn, label="density [1 / unit of area]")
        whole = grid.mean() * (2 * extent) ** 2
        alt = (
            f"Heat map of a density in two dimensions with {len(points)} points on it: {grid.max():.2g} at its highest "
            f"place, {np.median(grid):.2g} at the median place; its sum over the square is {whole:.2f}."
        )
        caption(fig, f"{note} White: the points.", alt)
    return fig


def roc_by_kind(scores: pd.DataFrame, note: str) -> Figure:
    """ROC curve of each kind of defect against all normal images, its AUROC in the legend, the largest first.

    scores: one run's, with columns label, score and defect.
    """
    normal = scores[scores.label == 0]
    curves = {}
    for kind, images in scores[scores.label == 1].groupby("defect"):
        both = pd.concat([normal, images])
        curves[kind] = (roc_auc_score(both.label, both.score), len(images), roc_curve(both.label, both.score)[:2])
    order = sorted(curves, key=lambda kind: -curves[kind][0])
    with canvas(6.4, 4) as fig:
        ax = fig.subplots()
        for k, kind in enumerate(order):
            auroc, count, (fpr, tpr) = curves[kind]
            style = {"color": OTHERS[k % len(OTHERS)], "linestyle": DASHES[k % len(DASHES)]}
            ax.plot(fpr, tpr, label=f"{kind} ({count}): {100 * auroc:.1f} %", linewidth=1.6, **style)
        ax.plot([0, 1], [0, 1], color=ASIDE, linewidth=0.8, label="guessing: 50 %")
        ax.set(xlabel="share of normal images that are flagged", ylabel="share of defective images found")
        ax.set(xlim=(0, 1), ylim=(0, 1.01))
        ax.legend(title="kind (images): AUROC", loc="center left", bbox_to_anchor=(1.02, 0.5))
        told = ", ".join(f"{kind} {100 * curves[kind][0]:.1f} %" for kind in order)
        caption(fig, f"{note} {len(normal)} normal images.", f"ROC curves by kind of defect. AUROC: {told}.")
    return fig
