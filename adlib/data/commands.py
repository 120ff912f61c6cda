"""What `python -m adlib data ...` does: prints, and returns the exit status."""

import argparse

from adlib import data


def run(args: argparse.Namespace) -> int:
    """0 done, 1 faults found; UserError (status 2) for bad input."""
    actions = {"list": _list, "verify": _verify, "download": _download, "describe": _describe, "addresses": _addresses}
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> int:
    for name in sorted(data.CATALOGUE):
        print(f"{name:12s} {data.where(name)}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from adlib.data.inspection.verify import verify

    report = verify(args.name, args.root, args.category)
    print(report)
    return 0 if report.ok else 1


def _download(args: argparse.Namespace) -> int:
    from adlib.data.download import download

    print(download(args.name, args.root, accept_licence=args.accept_licence))
    return 0


def _describe(args: argparse.Namespace) -> int:
    from adlib.data.inspection.describe import describe, text

    print(text(describe(args.name, args.category)))
    return 0


def _addresses(args: argparse.Namespace) -> int:
    from adlib.data.download import addresses

    sources = addresses.sources()
    files = [f"{name}/{a.name}" for name, source in sources.items() for a in (*source.archives, *source.extras)]
    width = max(map(len, files), default=0)
    asked: dict[str, list[bool]] = {}  # file -> whether each of its addresses answers
    for name, url, answer in addresses.answers(sources):
        asked.setdefault(name, []).append(answer.startswith("answers"))
        print(f"{name:{width}s} {answer}: {url}", flush=True)
    dead = [name for name, alive in asked.items() if not any(alive)]
    for name in dead:
        if len(asked[name]) > 1:  # of a single address its own line has said it
            print(f"{name}: no address answers; `adlib data download` cannot fetch it")
    return 1 if dead else 0
