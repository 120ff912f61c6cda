"""The picture of the project's first page: photographs, and what each method's anomaly map says of them.

Public names: `adlib.figures`.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from adlib.common.errors import UserError
from adlib.figures.maps import _material, _show, scale
from adlib.figures.style import ANOMALOUS, NORMAL, canvas, caption, described


def found_and_missed(runs: dict, category: str, right: int = 4) -> Figure:
    """Pictures with every method's map below: `right` that all decide right, then one that some method does not.

    runs: {name of the method as readers know it: its run}, all on the same test images. One normal picture comes first,
    then anomalous ones, the first of each kind in turn; their defects are outlined. Raises UserError where the runs
    were scored on different images.
    """
    decisions = _decisions(runs, category)
    rows = _chosen(decisions, list(runs), right)
    drawn = {name: _material(run, category, rows) for name, run in runs.items()}
    first = next(iter(runs))
    with canvas(1.75 * len(rows), 1.85 * (1 + len(runs))) as fig:
        axes = fig.subplots(1 + len(runs), len(rows), squeeze=False)
        for k, row in enumerate(rows):
            picture, mask, _ = drawn[first][row]
            _outlined(axes[0, k], picture, mask)
            axes[0, k].set_title(_title(decisions, row, list(runs)), fontweight="bold")
            for line, name in zip(axes[1:, k], runs, strict=True):
                _show(line, drawn[name][row][2], cmap="viridis", norm=scale(runs[name], category))
                title, look = _verdict(name, decisions, row)
                line.set_title(title, **look)
        caption(fig, *_texts(runs, category, decisions, rows))
    return fig


def _decisions(runs: dict, category: str) -> pd.DataFrame:
    """Rows of `run.scores`: label, defect and, in a column for each method, its decision."""
    tables = {name: run.scores[run.scores.category == category] for name, run in runs.items()}
    first = next(iter(tables.values()))
    if any(list(table.path) != list(first.path) for table in tables.values()):
        raise UserError(f"the runs of {', '.join(runs)} were scored on different images of {category}")
    return first[["label", "defect"]].assign(**{name: table.decision for name, table in tables.items()})


def _chosen(decisions: pd.DataFrame, methods: list[str], right: int) -> list[int]:
    """Row numbers: one normal, then anomalous images that all decide right, last one that some method does not."""
    correct = decisions[methods].eq(decisions.label, axis=0)
    turn = decisions.groupby("defect").cumcount()
    ordered = decisions.index[np.lexsort((decisions.defect, turn))]
    agreed = [row for row in ordered if correct.loc[row].all()]
    normal = [row for row in agreed if decisions.label[row] == 0][:1]
    anomalous = [row for row in agreed if decisions.label[row] == 1][: right - len(normal)]
    wrong = [row for row in ordered if not correct.loc[row].all()]
    missed = [row for row in wrong if decisions.label[row] == 1]
    return [*normal, *anomalous, *(missed or wrong)[:1]]


def _outlined(ax, picture: np.ndarray, mask: np.ndarray | None) -> None:
    _show(ax, picture)
    if mask is not None and mask.any() and not mask.all():
        ax.contour(mask, [0.5], colors=ANOMALOUS, linewidths=1)


def _kind(decisions: pd.DataFrame, row: int) -> str:
    return decisions.defect[row] if decisions.label[row] else "normal"


def _title(decisions: pd.DataFrame, row: int, methods: list[str]) -> str:
    if (decisions.loc[row, methods] == decisions.label[row]).all():
        return _kind(decisions, row)
    return f"failure: missed {decisions.defect[row]}" if decisions.label[row] else "failure: false alarm"


def _verdict(name: str, decisions: pd.DataFrame, row: int) -> tuple[str, dict]:
    """Title of a map and its colour, which is the decision's."""
    said = decisions[name][row]
    wrong = "" if said == decisions.label[row] else " (wrong)"
    return f"{name}: {'anomalous' if said else 'normal'}{wrong}", {"color": ANOMALOUS if said else NORMAL, "size": 8}


def _texts(runs: dict, category: str, decisions: pd.DataFrame, rows: list[int]) -> tuple[str, str]:
    """Caption and alternative text."""
    normal = decisions.label == 0
    counts = "; ".join(
        f"{name} flags {(decisions[name][normal] == 1).sum()} of {normal.sum()} normal pictures and misses "
        f"{(decisions[name][~normal] == 0).sum()} of {(~normal).sum()} anomalous ones"
        for name in runs
    )
    text = (
        f"{described(runs.values())}. Above: test pictures, defects outlined. Below: anomaly maps, one colour scale "
        "for each method; brighter is more anomalous. The last column shows an error. The decision compares the "
        f"picture's score with a threshold from normal pictures. {counts}."
    )
    shown = ", ".join(_title(decisions, row, list(runs)) for row in rows)
    names = " and ".join(runs)
    return text, f"{len(rows)} pictures of {category} ({shown}), below each the maps of {names}. {counts}."
