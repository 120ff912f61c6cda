"""The command line: `python -m adlib COMMAND`. Nothing but argument handling; imports happen inside the commands.

Exit status: 0 done, 1 finished but something failed or was not reproduced, 2 bad input (one sentence on stderr), 130
interrupted.
"""

import argparse
import json
import os
import sys


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adlib", description="Reproductions of papers on industrial image anomaly detection."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    p = commands.add_parser("run", help="train what is missing of a method on a data set and print the table")
    p.add_argument("method")
    p.add_argument("dataset")
    p.add_argument("categories", nargs="*", help="default: all")
    p.add_argument("--seeds", type=int, nargs="+", default=[0])
    p.add_argument("--config", default="{}", help="changes of the paper's setting as JSON, e.g. '{\"epochs\": 20}'")
    p.add_argument("--device", default="auto")

    p = commands.add_parser(
        "batch", help="run a batch file: all its runs, then its notebooks; resumes what was interrupted"
    )
    p.add_argument("file")
    p.add_argument("--cores", type=int, help="default: all")
    p.add_argument("--profile", default="local", help="local, slurm or kubernetes")
    p.add_argument("--dry-run", action="store_true", help="check everything and list what would run")
    p.add_argument("extra", nargs="*", help="after --: options for the engine")

    p = commands.add_parser("predict", help="score pictures with a finished run: heat maps, overlays, one CSV")
    p.add_argument("run", help="run folder")
    p.add_argument("pictures", help="a picture or a folder")
    p.add_argument("--out", required=True, help="folder for the results")
    p.add_argument("--device", default="auto")
    p.add_argument("--category", help="for a run that covers several")

    p = commands.add_parser("check", help="a verdict per published cell; exit status 1 where one is not reproduced")
    p.add_argument("runs", help="folder with run folders, e.g. results/runs")
    p.add_argument("--paper", required=True)

    p = commands.add_parser("list", help="finished runs below a folder: numbers, stale or not")
    p.add_argument("runs", nargs="?", help="default: the results folder")

    p = commands.add_parser("evidence", help="copy finished runs, tables, notebooks to results/reference; fill README")
    p.add_argument("file", nargs="?", help="batch file; default: batch/reference.yml")

    p = commands.add_parser("data", help="data sets: what there is, whether it is complete, how to get it")
    _data_actions(p.add_subparsers(dest="action", required=True, metavar="ACTION"))
    return parser


def _data_actions(actions) -> None:
    actions.add_parser("list", help="all known data sets and where they lie")

    p = actions.add_parser("verify", help="compare with the official data; one line per fault, exit status 1 with any")
    p.add_argument("name", metavar="NAME", help="a data set, or dtd")
    p.add_argument("--category", nargs="+", help="default: all that are there")
    p.add_argument("--root", help="the data set's folder; default: $ADLIB_DATA/NAME")

    p = actions.add_parser("download", help="fetch an official data set, or say how; goes on where it was stopped")
    p.add_argument("name", metavar="NAME", help="mvtec_ad, btad, mtd, dagm or dtd")
    p.add_argument("--accept-licence", action="store_true", help="you have read the licence that is printed without it")
    p.add_argument("--root", help="the data set's folder; default: $ADLIB_DATA/NAME")

    p = actions.add_parser("describe", help="counts, sizes, defect sizes and brightness; what mean grey alone detects")
    p.add_argument("name", metavar="NAME", help="a data set or a mixture")
    p.add_argument("--category", nargs="+", help="default: all that are there")


def _run(args) -> int:
    import adlib
    from adlib.common.errors import UserError
    from adlib.reports import tables

    try:
        config = json.loads(args.config)
    except json.JSONDecodeError as error:
        raise UserError(f"--config is no JSON ({error}); write e.g. '{{\"epochs\": 20}}'") from error
    if not isinstance(config, dict):
        raise UserError(f"--config is {args.config}; it must be a JSON object, e.g. '{{\"epochs\": 20}}'")
    runs = adlib.reproduce(args.method, args.dataset, args.categories or None, args.seeds, config, args.device)
    print(tables.to_markdown(tables.summary(runs)))
    for run in runs:
        print(run.path)
    return 0


def _batch(args) -> int:
    from adlib import batch

    return batch.main(args.file, cores=args.cores, profile=args.profile, dry_run=args.dry_run, extra=args.extra)


def _predict(args) -> int:
    from adlib import inference, runs

    table = inference.predict_to_folder(runs.load(args.run), args.pictures, args.out, args.device, args.category)
    print(
        f"{len(table)} pictures, {int(table.decision.sum())} anomalous at the threshold {table.threshold.iloc[0]:.4g}"
    )
    median = table[["network_ms", "end_to_end_ms"]].median()
    print(f"median {median.network_ms:.1f} ms network only, {median.end_to_end_ms:.1f} ms end to end")
    print(f"{args.out}/predictions.csv")
    return 0


def _check(args) -> int:
    from adlib import runs
    from adlib.reports import tables, verdict

    verdicts, ok = verdict.check(runs.find(args.runs), args.paper)
    print(tables.to_markdown(tables.verdict_table(verdicts)))
    return 0 if ok else 1


def _list(args) -> int:
    from adlib import runs
    from adlib.common import paths
    from adlib.reports import tables

    found = runs.find(args.runs or paths.results_root() / "runs")
    print(tables.to_markdown(tables.summary(found)))
    for run in found:
        print(f"{'stale  ' if run.stale else 'current'} {run.path}")
    return 0


def _evidence(args) -> int:
    from adlib.batch import evidence

    print(evidence.collect(args.file or evidence.BATCH))
    return 0


def _data(args) -> int:
    from adlib.data import commands

    return commands.run(args)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    args = _parser().parse_args(argv)
    from adlib.common.errors import UserError
    from adlib.common.files import UNWRITABLE

    try:
        status = globals()[f"_{args.command}"](args)
        sys.stdout.flush()  # a full disk or a closed pipe behind `>` and `|` shows here, not at exit
        return status
    except UserError as error:
        print(f"adlib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adlib: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, e.g. `head`, has seen enough; the interpreter's own flush must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(
            f"adlib: {error.filename or 'a file'} cannot be written ({error.strerror}); nothing unfinished was kept",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
