"""A run that ends as by kill -9: python killed.py CALL PART NUMBER, in the NUMBER-th CALL with a path named *PART*.

Half of what CALL had to write is there: the file is cut before the end. os.replace does not happen at all.
"""

import os
import signal
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import made
import torch

import adlib
from adlib import training

where, part, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
module, *kind, attribute = where.split(":")
owner = import_module(module) if not kind else getattr(import_module(module), kind[0])
original, calls = getattr(owner, attribute), []


def call(*arguments, **named):
    paths = [each for each in arguments if isinstance(each, Path) and part in each.name]
    calls.extend(paths[:1])
    if not paths or len(calls) < number:
        return original(*arguments, **named)
    if attribute != "replace":
        original(*arguments, **named)
        os.truncate(paths[0], paths[0].stat().st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


torch.set_num_threads(int(os.environ["THREADS"]))
setattr(owner, attribute, call)
always = training.Training.__init__
training.Training.__init__ = lambda *arguments, **named: always(*arguments, **named, minutes=0)
training.SAVING_SHARE = float("inf")  # a checkpoint after every step
adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG, device="cpu")
