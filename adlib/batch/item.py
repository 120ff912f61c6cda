"""One notebook to execute: what, with which parameters, which runs it makes, and what became of it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from adlib.common import paths

RESOURCES = {"threads": 1, "gpu": 0, "mem_mb": 2000, "runtime": 600}  # runtime in minutes; see profiles/


@dataclass(frozen=True)
class Item:
    """One notebook to execute: what, with which parameters, and for a work item the run folders that it makes."""

    name: str
    notebook: str
    parameters: dict
    resources: dict = field(default_factory=lambda: dict(RESOURCES))
    runs: tuple[str, ...] = ()  # () for a report

    @property
    def sheet(self) -> Path:
        """The executed notebook, there only when it went through."""
        return executed() / ("runs" if self.runs else "") / f"{self.name}.ipynb"

    @property
    def log(self) -> Path:
        """The notebook as far as it has come; .out and .json beside it are the process's output and its end."""
        return executed() / "logs" / f"{self.name}.ipynb"

    @property
    def finished(self) -> bool:
        return self.sheet.is_file() and all((Path(r) / "run.json").is_file() for r in self.runs)

    @property
    def outcome(self) -> dict:
        """{"failed": sentence or None, "seconds": ...} of the last execution; {} where there was none."""
        path = self.log.with_suffix(".json")
        return json.loads(path.read_text()) if path.is_file() else {}


def executed() -> Path:
    """Where executed notebooks go: `$ADLIB_RESULTS/executed`."""
    return paths.results_root() / "executed"
