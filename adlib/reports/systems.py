"""Several systems on the same pictures and features: every seed's numbers side by side."""

import dataclasses

import pandas as pd

from adlib.metrics.names import SHOWN, label
from adlib.models import multiscale
from adlib.reports import published


def name_of(method: str) -> str:
    """A registered system's name in the papers' tables, else its registered name."""
    table = published.systems()
    found = table.system[table.method == method]
    return found.iloc[0] if len(found) else method


def bare_name(method: str) -> str:
    """`name_of` without the word that tells an original from its reproduction in a paper's table."""
    return name_of(method).removesuffix(" (original)")


def rivals(method: str, config: dict, changes: dict[str, dict]) -> list[tuple[str, dict]]:
    """(method, config) of what a page shows beside its own system, each with its own changes. None without rivals.

    Beside ValidFlow they see the features of its config, and the last is ValidFlow itself after one step. method,
    config: the page's own, the latter as changes of the paper's setting; changes: {method: its own changes}.
    """
    if method != "validflow":
        return list(changes.items())
    training = {"epochs", "steps", "batch_size", "eval_every"}
    common = {field.name for field in dataclasses.fields(multiscale.Config)} - training
    shared = {name: value for name, value in config.items() if name in common}
    found = [(method, shared | own) for method, own in changes.items()]
    return [*found, ("validflow", config | {"epochs": None, "steps": 1})] if found else []


def against(runs, others: dict) -> pd.DataFrame:
    """Numbers of one system's runs beside those of others: category, seed, rival, metric, value, ours; all 0..1.

    others: {method: its runs}. Categories, seeds and metrics that both have are compared; made for `sections.shows`.
    """
    own = _values(runs)
    rows = [
        {
            "category": key[0],
            "seed": key[1],
            "rival": name_of(method),
            "metric": key[2],
            "value": value,
            "ours": own[key],
        }
        for method, theirs in others.items()
        for key, value in _values(theirs).items()
        if key in own
    ]
    return pd.DataFrame(rows, columns=["category", "seed", "rival", "metric", "value", "ours"])


def table(runs, others: dict) -> pd.DataFrame:
    """In percent, a row per category, metric and system, ours first; a column per seed, and their mean."""
    rows = [
        {"category": category, "metric": label(metric), "system": name, "seed": f"seed {seed}", "value": 100 * value}
        for name, found in {"ours": runs, **{name_of(method): theirs for method, theirs in others.items()}}.items()
        for (category, seed, metric), value in _values(found).items()
    ]
    found = pd.DataFrame(rows)
    wide = found.pivot_table(index=["category", "metric", "system"], columns="seed", values="value", sort=False)
    wide = wide.assign(mean=wide.mean(axis=1)).rename_axis(columns=None)
    order = found.drop_duplicates(["category", "metric"])[["category", "metric"]].itertuples(index=False)
    return pd.concat([wide.loc[[row for row in wide.index if row[:2] == tuple(pair)]] for pair in order]).round(1)


def _values(runs) -> dict[tuple[str, int, str], float]:
    """{(category, seed, metric): value} of the metrics that are shown, as far as a run has them."""
    return {
        (category, run.record["seed"], metric): facts["metrics"][metric]
        for run in runs
        for category, facts in run.record["per_category"].items()
        for metric in SHOWN
        if facts["metrics"].get(metric) is not None
    }
