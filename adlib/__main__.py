"""The command line: `python -m adlib COMMAND`. Nothing but argument handling; adlib/commands.py does the work.

Exit status: 0 done, 1 finished but something failed or was not reproduced, 2 bad input (one sentence on stderr), 75
unfinished within the time budget (the same command goes on), 130 interrupted.
"""

import argparse
import os
import sys

import adlib
from adlib import commands, models, options
from adlib.commands import FORMATS
from adlib.common import paths
from adlib.common.errors import UserError, nearest, unknown
from adlib.common.files import UNWRITABLE
from adlib.common.paths import check_place

DEVICES = "auto, cpu, cuda, cuda:0, ...; default auto: a GPU where there is one"
RUN_HELP = "train what is missing of a method on a data set and print the table"
NEEDED = ["METHOD", "DATASET"]  # of `run`
FLAGS = ("--together", "-h", "--help")  # options of `run` that take no value


def _parser() -> options.Parser:
    """The parser of all commands but `run`."""
    parser = options.Parser(prog="adlib", description="Reproductions of papers on industrial image anomaly detection.")
    parser.add_argument("--version", action="version", version=f"adlib {adlib.__version__}")
    actions = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    actions.add_parser("run", help=RUN_HELP, add_help=False)  # `_run_arguments` reads its arguments
    p = actions.add_parser("methods", help="the methods that can be run, with their papers")
    p.set_defaults(call=commands.methods)
    _batch_commands(actions)
    _result_commands(actions)
    p = actions.add_parser("data", help="data sets: what there is, whether it is complete, how to get it")
    p.set_defaults(call=commands.data_action)
    _data_actions(p.add_subparsers(dest="action", required=True, metavar="ACTION"))
    return parser


def _batch_commands(actions) -> None:
    p = actions.add_parser(
        "batch", help="run a batch file: all its runs, then its notebooks; resumes what was interrupted"
    )
    p.set_defaults(call=commands.batch)
    p.add_argument("file", type=check_place, help="e.g. batch/quick.yml")
    p.add_argument("--cores", type=options.Whole(1, 4096), help="default: all")
    p.add_argument(
        "--profile", type=check_place, default="local", help="local, slurm, kubernetes or a folder; default local"
    )
    p.add_argument("--dry-run", action="store_true", help="check everything and list what would run")
    p.add_argument("extra", nargs="*", default=[], help="after --: options for the engine")

    p = actions.add_parser("evidence", help="copy finished runs, tables, notebooks to results/reference; fill README")
    p.set_defaults(call=commands.evidence)
    p.add_argument("file", nargs="?", type=check_place, help="batch file; default: batch/reference.yml")


def _result_commands(actions) -> None:
    p = actions.add_parser("list", help="finished runs below a folder: numbers, stale or not")
    p.set_defaults(call=commands.list_runs)
    p.add_argument("runs", nargs="?", type=check_place, help="default: the results folder")
    p.add_argument("--format", choices=FORMATS, default="text", help="text also names the folders")

    p = actions.add_parser(
        "check", help="a verdict per cell against papers and reference; exit status 1 where one is not reproduced"
    )
    p.set_defaults(call=commands.check)
    p.add_argument("runs", type=check_place, help="run folder, folder with runs below it, or batch file (*.yml)")
    p.add_argument("--paper", help="e.g. simplenet; default: each that prints a system on the runs' data")
    p.add_argument(
        "--reference", type=check_place, metavar="DIR", help="default: results/reference/runs; none: leave it out"
    )
    p.add_argument("--format", choices=FORMATS, default="text", help="default text")
    p.add_argument("--allow-incomparable", action="store_true", help="status 0 even where nothing was comparable")
    p.add_argument("--allow-missing", action="store_true", help="status 0 even where runs of the batch are missing")

    p = actions.add_parser("predict", help="score pictures with a finished run: heat maps, overlays, one CSV")
    p.set_defaults(call=commands.predict)
    p.add_argument("run", type=check_place, help="run folder, or a folder with one run below it")
    p.add_argument("pictures", type=check_place, help="a picture or a folder")
    p.add_argument("--out", type=check_place, required=True, help="folder for the results")
    p.add_argument("--device", default="auto", help=DEVICES)
    p.add_argument("--category", help="for a run that covers several")

    p = actions.add_parser("export", help="write a run's network for other software, checked against its own scores")
    p.set_defaults(call=commands.export)
    p.add_argument("run", type=check_place, help="run folder, or a folder with one run below it")
    p.add_argument(
        "--onnx",
        nargs="?",
        type=check_place,
        metavar="FILE",
        help="the format, the only one so far; FILE: default named after the run, in this folder",
    )


def _data_actions(actions) -> None:
    actions.add_parser("list", help="all known data sets and where they lie")

    p = actions.add_parser("verify", help="compare with the official data; one line per fault, exit status 1 with any")
    p.add_argument("name", metavar="NAME", help="a data set, or dtd")
    p.add_argument("--category", nargs="+", help="default: all that are there")
    p.add_argument("--root", type=check_place, help="the data set's folder; default: $ADLIB_DATA/NAME")

    p = actions.add_parser("download", help="fetch an official data set, or say how; goes on where it was stopped")
    p.add_argument("name", metavar="NAME", help="mvtec_ad, btad, mtd, dagm or dtd")
    p.add_argument("--accept-licence", action="store_true", help="you have read the licence that is printed without it")
    p.add_argument("--root", type=check_place, help="the data set's folder; default: $ADLIB_DATA/NAME")

    p = actions.add_parser("describe", help="counts, sizes, defect sizes and brightness; what mean grey alone detects")
    p.add_argument("name", metavar="NAME", help="a data set or a mixture")
    p.add_argument("--category", nargs="+", help="default: all that are there")

    actions.add_parser("addresses", help="ask whether each download address answers; one line each")


def _run_parser(method: str) -> options.Parser:
    parser = options.Parser(
        prog="adlib run",
        usage="adlib run METHOD DATASET [CATEGORY ...] [OPTION ...]",
        description=f"{RUN_HELP[0].upper()}{RUN_HELP[1:]}.",
        epilog=f"`adlib run {method} --help` lists the settings of the method as options; `adlib methods` all methods.",
    )
    parser.set_defaults(call=commands.run)
    parser.add_argument("method", help="one of `adlib methods`")
    parser.add_argument("dataset", help="one of `adlib data list`, or a mixture, e.g. 'mvtec_ad:screw + mtd'")
    parser.add_argument("categories", nargs="*", default=[], help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="integers from 0, one run each; default 0")
    parser.add_argument("--together", action="store_true", help="one model for all categories; default: one for each")
    parser.add_argument("--device", default="auto", help=DEVICES)
    parser.add_argument("--format", choices=FORMATS, default="text", help="text also names the folders; default text")
    parser.add_argument(
        "--config", default="{}", help="settings as a JSON object, e.g. '{\"epochs\": 20}'; default {}, none"
    )
    return parser


def _run_arguments(argv: list[str]) -> argparse.Namespace:
    """Two stages: names, checked before torch is there; then the options, which come from the method's Config."""
    names, rest = options.names_first([_dashed(word) for word in argv], FLAGS)
    if names:
        commands.check_run_names(names[0], names[1] if len(names) > 1 else None, names[2:])
    parser = _run_parser(names[0] if names else "METHOD")
    if not {"-h", "--help"} & set(rest):
        _check_complete(parser, names, rest)
    if names:
        options.add(parser, models.get(names[0])[1])
    args, surplus = parser.parse_known_intermixed_args([*names, *rest])
    parser.refuse(surplus)
    return args


def _check_complete(parser: options.Parser, names: list[str], rest: list[str]) -> None:
    """UserError where the method or the data set is missing; a slip in an option (`--hlp`) may be the reason."""
    if len(names) >= len(NEEDED):
        return
    for option in (word.partition("=")[0] for word in rest if options.is_option(word)):
        if option not in parser.options() and nearest(option, parser.options()):
            raise unknown("option", option, parser.options())
    raise UserError(parser.needs(NEEDED[len(names) :]))


def _dashed(argument: str) -> str:
    """--image_size as --image-size: both spellings are the same option."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _arguments(argv: list[str]) -> argparse.Namespace:
    options.check_words(argv)
    if argv[:1] == ["run"]:
        return _run_arguments(argv[1:])
    args, surplus = _parser().parse_known_args(argv)
    args.parser.refuse(surplus)
    return args


def _printed(args: argparse.Namespace) -> int:
    """The command's exit status, once all it printed has left: a full disk or a closed pipe shows here, not at exit."""
    status = args.call(args)
    sys.stdout.flush()
    return status


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        return _printed(_arguments(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"adlib: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("adlib: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, e.g. `head`, has seen enough; the interpreter's own flush must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        place = error.filename or (
            f"the output, or a file in {paths.results_root()} or {paths.cache_root()} (ADLIB_RESULTS, ADLIB_CACHE),"
        )
        print(f"adlib: {place} cannot be written ({error.strerror}); nothing unfinished was kept", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
