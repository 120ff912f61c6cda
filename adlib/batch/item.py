"""One notebook to execute: its name, parameters and resources, the runs that it makes, and what became of it."""

import contextlib
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from adlib.common import paths
from adlib.common.errors import UserError, shown
from adlib.common.files import written_whole
from adlib.runs import proof

RESOURCES = {"threads": 1, "gpu": 0, "mem_mb": 2000, "runtime": 600}  # runtime in minutes; see profiles/
LONGEST_NAME = 150  # bytes; endings and marks are added, and most file systems stop at 255


class Outcome(NamedTuple):
    """How the last execution of an item ended: end is "done", "failed" or "left"; reason is None where it went well."""

    end: str
    reason: str | None
    seconds: float


@dataclass(frozen=True)
class Item:
    """One notebook to execute. runs: the run folders that a work item makes, () for a report.

    Raises UserError for a name that cannot be a file's name beside the batch's other files, see `check_name`.
    """

    name: str
    notebook: str
    parameters: dict
    resources: dict = field(default_factory=lambda: dict(RESOURCES))
    runs: tuple[str, ...] = ()

    def __post_init__(self):
        check_name(self.name)

    def to_json(self) -> dict:
        """The item as JSON values; `from_json` gives an equal item back."""
        return asdict(self) | {"runs": list(self.runs)}

    @classmethod
    def from_json(cls, values: dict) -> "Item":
        """The item that `to_json` described; further keys are ignored."""
        fields = {name: values[name] for name in cls.__dataclass_fields__}
        return cls(**fields | {"runs": tuple(fields["runs"])})

    @property
    def sheet(self) -> Path:
        """The executed notebook, there only when it went through."""
        folder = executed() / "runs" if self.runs else executed()
        return folder / f"{self.name}.ipynb"

    @property
    def log(self) -> Path:
        """The notebook as far as it has come. Beside it: .out, the process's output; .json, its end; .lock."""
        return logs() / f"{self.name}.ipynb"

    @property
    def finished(self) -> bool:
        """Whether the sheet and all runs are there and whole, and a report was made with these parameters."""
        if not self.sheet.is_file():
            return False
        if self.runs:
            return all(proof.finished(Path(run)) for run in self.runs)
        return self._sheet_parameters() == json.loads(json.dumps(self.parameters))

    def _sheet_parameters(self) -> dict | None:
        """What the executed notebook was made with: papermill notes it. The engine sees only the file's time."""
        try:
            return json.loads(self.sheet.read_text(encoding="utf-8"))["metadata"]["papermill"]["parameters"]
        except (ValueError, KeyError, TypeError):
            return None

    @property
    def outcome(self) -> Outcome | None:
        """How the last execution ended; None where there was none since `clear`."""
        with contextlib.suppress(FileNotFoundError):
            return Outcome(**json.loads(self._outcome_file.read_text(encoding="utf-8")))
        return None

    def set_outcome(self, outcome: Outcome) -> None:
        """Write down how an execution ended, for the batch that waits for it."""
        with written_whole(self._outcome_file) as scratch:
            scratch.write_text(json.dumps(outcome._asdict()) + "\n", encoding="utf-8")

    @property
    def _outcome_file(self) -> Path:
        return logs() / f"{self.name}.json"

    def clear(self) -> None:
        """Remove what would mislead the engine: an old end, a sheet without its runs or with other parameters."""
        self._outcome_file.unlink(missing_ok=True)
        if not self.finished:
            self.sheet.unlink(missing_ok=True)


def executed() -> Path:
    """Where executed notebooks go: `$ADLIB_RESULTS/executed`."""
    return paths.results_root() / "executed"


def logs() -> Path:
    """Where everything else goes that an execution leaves: logs, ends, locks, plan files."""
    return executed() / "logs"


def check_name(name: str) -> None:
    """Raises UserError unless the name is letters (of any script), digits and `._+-`, at most 150 bytes, without a
    leading dash or dot, and not like a plan file's ("NAME.plan").
    """
    if not re.fullmatch(r"[\w+][\w.+-]*", name):
        raise UserError(
            f"name {shown(name)} is no file name that works everywhere; "
            "valid: letters, digits and . _ + - without a leading dash or dot"
        )
    if len(name.encode()) > LONGEST_NAME:
        raise UserError(f"name {shown(name)} has {len(name.encode())} bytes; valid: at most {LONGEST_NAME}")
    if name.lower().endswith(".plan"):
        raise UserError(f"name {name!r} ends as the batch's own plan files do; valid: any other ending than .plan")


def shortened(name: str) -> str:
    """The name, or where it has more than 150 bytes its beginning and a hash of all of it."""
    if len(name.encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return name.encode()[: LONGEST_NAME - 13].decode(errors="ignore") + "-" + digest
