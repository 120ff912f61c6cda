"""What every paper's notebook shows in the same way, each called in one line.

Functions return Markdown text or a DataFrame; a notebook displays them.
"""

from adlib.reports.sections.compared import by_ranks, floor_line, gaps, pictures_of, reading, seldom_found
from adlib.reports.sections.facts import (
    changes,
    data_used,
    decided,
    decisions,
    hardest,
    kinds,
    mean_text,
    mirrored,
    provenance,
    speed_table,
    work_done,
)
from adlib.reports.sections.floored import beside_floors
from adlib.reports.sections.judged import (
    chinese,
    closing,
    closing_counts,
    errata_table,
    headline,
    judged_cells,
    paper_tables,
)
from adlib.reports.sections.page import folded, remember, terms, times
from adlib.reports.sections.shows import shows

__all__ = [
    "beside_floors",
    "by_ranks",
    "changes",
    "chinese",
    "closing",
    "closing_counts",
    "data_used",
    "decided",
    "decisions",
    "errata_table",
    "floor_line",
    "folded",
    "gaps",
    "hardest",
    "headline",
    "judged_cells",
    "kinds",
    "mean_text",
    "mirrored",
    "paper_tables",
    "pictures_of",
    "provenance",
    "reading",
    "remember",
    "seldom_found",
    "shows",
    "speed_table",
    "terms",
    "times",
    "work_done",
]
