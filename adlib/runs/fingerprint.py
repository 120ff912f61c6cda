"""Which code a run came from: a finished run whose code has changed since is stale.

What counts is every definition that a run of the system can reach (`adlib.common.definitions`): its own file, the loop,
the evaluation, the metrics, the pictures. What does not: places and locks, the registry, how the record is written, and
the data sets, whose content is part of a run's identity.
"""

import functools
import hashlib

from adlib import data, models
from adlib.common import definitions
from adlib.runs.execution import execute

COMMON = tuple(f"adlib.common.{name}" for name in ("errors", "environment", "paths", "files", "hashes", "definitions"))
REGISTRY = ("adlib.models.get", "adlib.models.SYSTEMS")
OWN = tuple(f"adlib.runs.{name}" for name in ("record", "proof", "plan", "fingerprint"))
OUTSIDE = (*COMMON, *REGISTRY, "adlib.data", *OWN)


@functools.cache
def code_fingerprint(method: str) -> str:
    """16 hex digits over the definitions that a run of the system can reach, by content: without file names, comments
    and docstrings, so that moving code, or adding a definition beside it, makes no run stale.
    """
    detector, _ = models.get(method)
    parts = [definitions.fingerprint(detector, execute, outside=OUTSIDE)]
    parts.append(definitions.fingerprint(data.holdback, outside=COMMON))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
