"""What each command does: it calls the library, prints, and returns the exit status. Imports of torch happen inside."""

import argparse
import ast
import json
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from adlib import models, options
from adlib.common import paths
from adlib.common.errors import UserError, check_names, shown
from adlib.common.files import regular_text

# copies of those in adlib.reports.printing, which imports pandas: --help and `methods` do not wait for it
FORMATS = ("text", "md", "csv", "json")
WIDTH = 100  # columns of a terminal
NOTE = "note: "  # begins a line on stderr
CALLS = 5  # per number of threads, when the faster one is chosen


def check_run_names(method: str, dataset: str | None = None, categories: list[str] | None = None) -> None:
    """UserError for an unknown method, data set or category. Needs no torch, so the answer comes at once."""
    check_names("method", [method], models.SYSTEMS)
    if dataset is not None:
        from adlib import data  # pandas, for which --help does not wait

        data.check(dataset)
        for category in categories or []:
            data.spelled(dataset, category)


def run(args: argparse.Namespace) -> int:
    """Train what is missing, print the table and the folders."""
    from adlib import runs  # torch
    from adlib.reports import tables

    config = options.combined(options.values(args, models.get(args.method)[1]), _json_object(args.config))
    runs.check(args.method, args.seeds, config, args.device)
    seeds = ", ".join(map(str, args.seeds))
    _stage(f"{args.method} {args.dataset}: data {', '.join(args.categories) or 'of all categories'}; seeds {seeds}")
    chosen = (args.categories or None, args.seeds, config, args.device, args.together)
    told: dict[str, None] = {}  # notes: each once, whatever the number of seeds
    finished = runs.reproduce(args.method, args.dataset, *chosen, report=lambda line: _reported(line, told))
    _stage(f"{args.method} {args.dataset}: table, finished runs: {len(finished)}")
    _print_table(tables.summary(finished), args.format, told)
    if args.format == "text":
        for one in finished:
            print(one.path)
    return 0


def _reported(line: str, told: dict[str, None]) -> None:
    """A line of `reproduce`: a note always and once, a stage where nobody watches."""
    if not line.startswith(NOTE):
        _stage(line)
    elif line not in told:
        told[line] = None
        print(line, file=sys.stderr, flush=True)


def _print_table(table, format: str, told: Iterable[str] = ()) -> None:
    """The table, in CSV with its notes on stderr, but for the lines `told` before."""
    from adlib.reports import tables  # pandas

    print(tables.to_text(table, format=format))
    if format == "csv":
        _say_beside([note for note in table.attrs.get("notes", []) if NOTE + note not in told])


def _say_beside(sentences: list[str]) -> None:
    """What a table of numbers alone cannot say, e.g. that pictures are rescaled, goes to stderr."""
    for sentence in sentences:
        print(f"{NOTE}{sentence}", file=sys.stderr)


def _json_object(text: str) -> dict:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:  # also an integer of thousands of digits, thousands of brackets
        raise UserError(f"--config is no JSON ({error}); write e.g. '{{\"epochs\": 20}}'") from error
    if not isinstance(config, dict):
        raise UserError(f"--config is {shown(config)}; it must be a JSON object, e.g. '{{\"epochs\": 20}}'")
    return config


def _stage(text: str) -> None:
    """One line per stage where nobody watches a progress bar."""
    if not sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def methods(args: argparse.Namespace) -> int:
    """Each method with the first paragraph of its file: name, authors, venue, title."""
    for name in models.SYSTEMS:
        # read, not imported: a file of a system imports torch
        module = models.SYSTEMS[name].rpartition(".")[0]
        source = Path(find_spec(module).origin).read_text(encoding="utf-8")
        paragraph = ast.get_docstring(ast.parse(source)).partition("\n\n")[0]
        paper = " ".join(paragraph.split())
        print(textwrap.fill(paper, WIDTH, initial_indent=f"{name:21s} ", subsequent_indent=" " * 22))
    return 0


def batch(args: argparse.Namespace) -> int:
    """Run a batch file."""
    _need_project("batch", "notebooks/, Snakefile and profiles/")
    regular_text(Path(args.file), "batch file")  # before torch, which the engine imports
    from adlib import batch as engine

    return engine.main(args.file, cores=args.cores, profile=args.profile, dry_run=args.dry_run, extra=args.extra)


def evidence(args: argparse.Namespace) -> int:
    """Copy the committed evidence."""
    _need_project("evidence", "results/reference and README.md")
    from adlib.batch import evidence as collection

    print(collection.collect([args.file] if args.file else collection.BATCHES))
    return 0


def _need_project(command: str, parts: str) -> None:
    if not paths.is_checkout():
        raise UserError(
            f"adlib {command} needs the project folder with its {parts}, and this adlib is installed without it at "
            f"{paths.PROJECT}; clone the project and use `make install` there"
        )


def predict(args: argparse.Namespace) -> int:
    """Score pictures with a run: heat maps, overlays, one CSV."""
    finished = _one_run(args.run)  # a wrong folder is answered before torch is there
    import torch

    from adlib import inference
    from adlib.reports import cautions

    inference.pictures_in(args.pictures, args.out)  # a wrong place is answered before the network is built
    predictor = finished.predictor(args.device, args.category)
    usual = threads = torch.get_num_threads()
    if torch.device(predictor.device).type == "cpu":
        threads = fastest_threads(predictor.warm_up)
    torch.set_num_threads(threads)
    _say_beside(cautions.cautions([finished.record], [args.category] if args.category else None))
    try:
        table = inference.predict_to_folder(predictor, args.pictures, args.out)
    finally:
        torch.set_num_threads(usual)
    anomalous = int(table.decision.sum())
    print(f"{len(table)} pictures, {anomalous} anomalous at the threshold {table.threshold.iloc[0]:.4g}")
    median = table[["network_ms", "end_to_end_ms"]].median()
    print(
        f"median {median.network_ms:.1f} ms network only, {median.end_to_end_ms:.1f} ms end to end, "
        f"on {predictor.device}, CPU threads: {threads}"
    )
    print(Path(args.out) / "predictions.csv")
    return 0


def _one_run(path: str):
    """The run in a folder, or the only one below it. UserError where there are several, with their folders."""
    if not Path(path).is_dir():  # torch takes seconds to import; this needs none
        raise UserError(f"run folder {path} does not exist; finished runs lie in {paths.results_root() / 'runs'}")
    from adlib import runs
    from adlib.data.samples import some  # pandas

    if (Path(path) / "run.json").is_file():
        return runs.load(path)
    below = list(runs.find(path))
    if len(below) > 1:
        folders = some([str(one.path.relative_to(path)) for one in below])
        raise UserError(f"{path} holds {len(below)} runs; name the folder of one, below it: {folders}")
    return below[0]


def fastest_threads(call: Callable[[], object]) -> int:
    """1 or all of torch's CPU threads, whichever makes `call` faster: the better median of a few calls after two.

    Single small pictures often lose more to the threads' meeting points than they win. Leaves torch's number as it was.
    """
    import torch

    usual = torch.get_num_threads()
    medians = {}
    try:
        for threads in dict.fromkeys((1, usual)):
            torch.set_num_threads(threads)
            times = []
            for _ in range(2 + CALLS):
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            medians[threads] = statistics.median(times[2:])
    finally:
        torch.set_num_threads(usual)
    return min(medians, key=medians.get)


def check(args: argparse.Namespace) -> int:
    """A verdict per published cell and reference number; 1 where one is not reproduced, none was comparable, or a run
    of the batch is missing.
    """
    place = Path(args.runs)
    if not place.exists() and (paths.PROJECT / place).exists():
        place = paths.PROJECT / place
    is_batch = place.suffix in (".yml", ".yaml") and not place.is_dir()
    if is_batch:
        regular_text(place, "batch file")
    elif not place.is_dir():
        kind = "is a file" if place.exists() else "does not exist"
        raise UserError(f"{place} {kind}; valid: a run folder, a folder with runs below it, or a batch file (*.yml)")
    if args.reference not in (None, "none") and not Path(args.reference).is_dir():
        raise UserError(f"--reference {args.reference} is no folder; valid: a folder with finished runs, or none")
    if args.paper is not None:
        from adlib.reports import published  # pandas

        check_names("paper", [args.paper], published.PAPERS)
    from adlib.batch.sources import finished  # torch, for which a wrong name does not wait
    from adlib.reports import check as checking

    allowed = args.allow_incomparable, args.allow_missing
    result = checking.check(finished(place), args.paper, _reference(args.reference), *allowed)
    print(result.text(args.format))
    if args.format == "csv":
        _say_beside(result.notes)
    return 0 if result.ok else 1


def _reference(folder: str | None):
    """The runs of the reference: of a folder, by default of the project's, where it is there; None: of none."""
    from adlib import runs

    usual = paths.PROJECT / "results" / "reference" / "runs"
    if folder == "none" or (folder is None and not usual.is_dir()):
        return None
    return runs.find(folder or usual)


def list_runs(args: argparse.Namespace) -> int:
    """The table of finished runs and, as text, their folders."""
    from adlib import runs
    from adlib.reports import tables

    folder = Path(args.runs) if args.runs else paths.results_root() / "runs"
    finished = runs.find(folder)
    _print_table(tables.summary(finished), args.format)
    if args.format == "text":
        print(f"\nbelow {folder}:")
        for one in finished:
            print(f"{'stale  ' if one.stale else 'current'} {one.path.relative_to(folder)}")
    return 0


def export(args: argparse.Namespace) -> int:
    """Write a run's network as ONNX, with its facts beside it."""
    finished = _one_run(args.run)  # a wrong folder is answered before torch is there
    from adlib import export as onnx_export

    record = finished.record
    name = f"{record['method']}-{record['dataset']}-{record['category']}-{record['hash']}-s{record['seed']}.onnx"
    written = onnx_export.to_onnx(finished, args.onnx or name.replace(":", "_").replace("/", "_"))
    print(f"{written.file}: image [B,3,{written.side},{written.side}] in 0..1 -> {', '.join(written.outputs)}")
    print(f"{written.sidecar}: thresholds, geometry, origin")
    print(f"onnxruntime agrees to {written.difference:.1e} on random pictures, batches of 1 and 3")
    return 0


def data_action(args: argparse.Namespace) -> int:
    """adlib data ..."""
    from adlib.data import commands

    return commands.run(args)
