"""README's commands, mutilated by a seeded generator: whatever is typed ends soon, in an exit status and a sentence.

Another seed: `FUZZ_SEED=7 pytest -m slow tests/test_fuzz.py`. What it finds is mended at its root and gets a test of
its own where the thing belongs.
"""

import contextlib
import io
import itertools
import os
import random
import re
import shlex
import shutil
import socket
import time
from pathlib import Path

import made
import pytest
import torch
from conftest import PROJECT

from adlib import batch, commands, export
from adlib.__main__ import main
from adlib.data.download import transfer

SEED = int(os.environ.get("FUZZ_SEED", "0"))
LINES, SAMPLE = 300, 40
SECONDS = 10
STATUSES = (0, 1, 2, 75)
VARIABLES = ("DATA", "RESULTS", "CACHE", "WEIGHTS", "MINUTES", "OFFLINE")
BATCH = "- {method: simplenet, dataset: folder, categories: [stripes], device: cpu, config: %s}\n- {notebook: run}\n"

WORDS = [
    "",
    " ",
    "\0",
    "a\0b",
    "\udcff",
    "a\nb",
    "\x1b[31m",
    "x" * 300,
    "x" * 70_000,
    "ü" * 200,
    "类别",
    "🦊",
    "e\u0301",
]
WORDS += [
    "..",
    "../..",
    "./x",
    "-",
    "--",
    "-rf",
    "-x",
    "--x=",
    "=",
    "*",
    "a*b?[c]",
    "**",
    "$(x) {y}",
    "{0}",
    "%s",
    "`x`",
]
WORDS += ["9" * 5000, "-1", "0", "1", str(10**9), "1e309", "-0.0", "nan", "inf", "none", "true", "1_0", "0x10", "١"]
WORDS += ["{", "[]", "5", "null", '{"epochs": %s}' % ("9" * 5000), "[" * 60_000, '{"a":' * 10_000, '{"epochs": [1]}']
WORDS += ['{"backbone": "\\u0000"}', '{"backbone": "hf-hub:a/b"}', '{"backbone": "../*"}', '{"layers": []}', '{"": 1}']
WORDS += [
    '{"image_size": 1000000000}',
    '{"metric_size": 100000}',
    '{"smooth": 1e9}',
    '{"batch_size": 4000}',
    '{"dim": 1e400}',
]
WORDS += [
    "~",
    "~nobody",
    "~nobody-at-all/x",
    "/nowhere/x",
    "/proc/x/y",
    "/dev/null",
    "/dev/full",
    "/dev/zero",
    "/root/x",
]
WORDS += [
    "folder:stripes",
    "folder+folder",
    "folder:stripes+",
    "mtd?split=seeded",
    "folder?split_seed=" + "9" * 5000,
    "+",
    ":",
]
WORDS += [
    "--image-size=1000000000",
    "--metric-size=100000",
    "--smooth=1e9",
    "--epochs=" + "9" * 5000,
    "--seeds=99999999999",
]
WORDS += ["--cores=0", "--cores=-1", "--cores=1000000000", "--out=", "--device=gpu", "--device=cuda:999999", "--help"]
WORDS += [
    "--config=",
    "--root=",
    "--onnx=",
    "--category",
    "--together",
    "--dry-run",
    "--profile=",
    "--layers",
    "--backbone=x",
]


def commands_of_readme() -> list[list[str]]:
    """The lines of README's code blocks that call adlib, as words after `python -m adlib`."""
    blocks = re.findall(r"```\n(.*?)```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("python -m adlib ")]
    return [shlex.split(line, comments=True)[3:] for line in lines]


def test_readme_shows_every_command():
    """What is not shown is not mutilated."""
    shown = {words[0] for words in commands_of_readme()}
    assert shown == {"methods", "run", "data", "list", "predict", "export", "check", "batch"}


@pytest.fixture
def world(small_world, tmp_path, monkeypatch):
    """A small world with odd things in it; nothing in it downloads, trains long, or starts an engine."""
    shutil.copytree(small_world, tmp_path, dirs_exist_ok=True)
    made.live_in(tmp_path, monkeypatch)
    (tmp_path / "here" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "deep")
    monkeypatch.setenv("ADLIB_MINUTES", "0.02")
    settings = made.CONFIG | {"epochs": 1}
    (tmp_path / "batch.yml").write_text(BATCH % str(settings).replace("None", "null"))
    odd_things(tmp_path / "odd")

    def refuse(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(batch.engine, "snakemake", lambda *_: True)
    monkeypatch.setattr(commands, "fastest_threads", lambda call: torch.get_num_threads())
    monkeypatch.setattr(export, "_check_extra", refuse_export)
    return tmp_path


def refuse_export():
    """Tracing takes seconds; what comes before it is the command line's."""
    raise export.UserError("export is not tried here")


def odd_things(folder: Path) -> None:
    """Files and folders that are not what their place expects."""
    folder.mkdir()
    (folder / "file.png").write_text("no picture")
    (folder / "empty.yml").write_text("")
    (folder / "broken.yml").write_text("- {method: [")
    (folder / "bomb.yml").write_text(
        "- &a [1,1,1,1,1,1]\n"
        + "".join(f"- &{y} [{','.join(['*' + x] * 9)}]\n" for x, y in itertools.pairwise("abcdefghijk"))
    )
    (folder / "deep.yml").write_text("- " + "[" * 50_000)
    (folder / "nul.yml").write_text('- {notebook: run, name: "a\\0b"}')
    (folder / "names.yml").write_text(
        "- {notebook: [run], name: {a: b}}\n- {method: [simplenet], dataset: {a: 1}, categories: [[x]]}"
    )
    (folder / "wide.yml").write_text(
        f"- {{method: simplenet, dataset: folder, grid: {{margin: {list(range(2000))}, dim: {list(range(1, 2001))}}}}}"
    )
    (folder / "digits.yml").write_text("- {method: simplenet, dataset: folder, seeds: %s}" % ("9" * 5000))
    (folder / "bytes").write_bytes(b"\xff\xfe\x00" * 100)
    (folder / "self").symlink_to(folder / "self")
    (folder / "gone").symlink_to(folder / "nothing")
    (folder / "empty").mkdir()
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text('{"method": ')
    (folder / "closed").mkdir()
    (folder / "closed").chmod(0)  # root reads it all the same
    os.mkfifo(folder / "pipe")


def lines(world: Path, count: int) -> list[tuple[list[str], dict[str, str]]]:
    """Mutilated command lines, each with changed environment variables; equal seeds give equal lines."""
    rng = random.Random(SEED)
    run = next((world / "results").rglob("run.json")).parent
    meant = {
        "RUN_FOLDER": run,
        "PICTURES": world / "data/folder/stripes/test",
        "DIR": world / "out",
        "brick": "stripes",
    }
    meant |= {
        "textures": "folder",
        "mvtec_ad": "folder",
        "results/runs": run.parent,
        "batch/paper.yml": world / "batch.yml",
    }
    meant |= {"model.onnx": world / "model.onnx", "20": 1}
    small = [
        x
        for k, v in made.CONFIG.items()
        if k not in ("epochs", "backbone")
        for x in (f"--{k}", "none" if v is None else str(v))
    ]
    bases = [[str(meant.get(word, word)) for word in words] for words in commands_of_readme()]
    bases = [words + small if words[0] == "run" else words for words in bases]
    bases += [["data", "describe", "folder"], ["data", "list"]]  # not `evidence`, which writes into the project
    odd = [str(path) for path in sorted((world / "odd").iterdir())] + [str(world / "data"), str(world / "batch.yml/x")]
    known = sorted({word for words in bases for word in words})
    return [_mutilated(rng, bases[k % len(bases)], WORDS + odd, known) for k in range(count)]


def _mutilated(
    rng: random.Random, words: list[str], odd: list[str], known: list[str]
) -> tuple[list[str], dict[str, str]]:
    """Mostly one change, and mostly behind the command's name: what is refused at its first word tests little."""
    words, environment = list(words), {}
    kinds = {"replace": 8, "option": 4, "environment": 4, "drop": 2, "double": 1, "swap": 1, "insert": 2, "known": 1}
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
        first = len(words) > 1 and 1 + (words[0] == "data") * (rng.random() < 0.9)
        place, other = (rng.randrange(min(first, len(words) - 1), len(words)) if words else 0 for _ in range(2))
        match rng.choices(list(kinds), kinds.values())[0]:
            case "replace":
                words[place : place + 1] = [rng.choice(odd)]
            case "option" if words[place:]:
                option = rng.choice([word for word in known if word.startswith("--")] + ["--config"] * 9)
                words[place + 1 : place + 1] = [option, rng.choice(odd)]
            case "environment":
                value = rng.choice(odd).encode(errors="replace").decode().replace("\0", "")
                environment["ADLIB_" + rng.choice(VARIABLES)] = value
            case "drop":
                del words[place : place + 1]
            case "double":
                words[place:place] = words[place : place + 1]
            case "swap" if words:
                words[place], words[other] = words[other], words[place]
            case "insert":
                words.insert(place + 1, rng.choice(odd))
            case "known":
                words.insert(place + 1, rng.choice(known))
    if environment.get("ADLIB_MINUTES", "1").strip() in ("", "0", "-0.0", "1", "5", "1_0", "١", str(10**9)):
        environment.pop("ADLIB_MINUTES", None)  # an hour of training is no fault
    return words, environment


def ended(words: list[str]) -> tuple[int, str]:
    """Exit status and stderr of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as stop:  # --help
            status = stop.code or 0
    return status, err.getvalue()


def faults(world: Path, count: int, monkeypatch) -> list[str]:
    """What each of the lines does that none should do."""
    found = []
    for words, environment in lines(world, count):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            start = time.monotonic()
            try:
                status, err = ended(words)
            except BaseException as error:
                status, err = repr(error), ""
            seconds = time.monotonic() - start
        said = [line for line in err.splitlines() if line.startswith("adlib: ")]
        well = status in STATUSES and "Traceback" not in err and len(said) <= 1 and (status != 2 or said)
        if not well or seconds > SECONDS:
            line = [word if len(word) < 100 else f"{word[:20]}...{len(word)}" for word in words]
            found.append(
                f"{status} {seconds:.0f} s {err[-300:]!r} {line} { {k: v[:80] for k, v in environment.items()} }"
            )
    return found


def test_a_sample_of_mutilated_command_lines_ends_in_a_status_and_a_sentence(world, monkeypatch):
    assert faults(world, SAMPLE, monkeypatch) == []


@pytest.mark.slow
def test_mutilated_command_lines_end_in_a_status_and_a_sentence(world, monkeypatch):
    assert faults(world, LINES, monkeypatch) == []
