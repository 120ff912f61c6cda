"""Settings of one method on the same images: which of them is nearest to a run's, and in which fields they differ.

A field forbids a comparison unless it is one of `verdict.NEUTRAL`: sizes, backbone, training and its length (shorter
and longer), other weights, texture bank or categories of a common model, and what makes another system.
"""

from collections.abc import Iterable

from adlib.data import mixtures, plain
from adlib.reports import measured, verdict
from adlib.reports.comparison import Contender, place_of


def parts(runs: Iterable) -> list[Contender]:
    """The runs of each setting on each category, by seed."""
    alike: dict[tuple, list] = {}
    for run in sorted(runs, key=lambda run: run.record["seed"]):
        for category in run.record["per_category"]:
            alike.setdefault((run.record["method"], run.record["hash"], category), []).append(run)
    return [Contender(method, category, tuple(seeds)) for (method, _, category), seeds in alike.items()]


def by_place(runs: Iterable) -> dict[tuple, list[Contender]]:
    """{method, data set, category: its settings}."""
    places: dict[tuple, list[Contender]] = {}
    for part in parts(runs):
        places.setdefault(place(part), []).append(part)
    return places


def place(part: Contender) -> tuple[str, str, str]:
    """Method, data set, category, whether a part of a mixture or not."""
    return part.method, *bare(*place_of(part.record, part.category))


def bare(dataset: str, category: str) -> tuple[str, str]:
    """Whatever the split or sample of a data set (its options): the fingerprint tells those apart."""
    return mixtures.options(dataset)[0], plain(category)


def choose(part: Contender, candidates: list[Contender]) -> Contender | None:
    """The setting to compare a part with: of those with the same images (fingerprint) that of the same hash, else the
    one with the fewest fields that forbid a comparison, then the fewest that differ at all, then the most seeds. None:
    all have other images.
    """

    def distance(theirs: Contender) -> tuple:
        differing = differences(part.record, theirs.record)
        other = theirs.record["hash"] != part.record["hash"]
        return other, sum(map(forbids, differing)), len(differing), -len(theirs.runs), theirs.record["hash"]

    images = part.record["data"][part.category]
    same = [theirs for theirs in candidates if theirs.record["data"][theirs.category] == images]
    return min(same, key=distance, default=None)


def forbids(field: str) -> bool:
    """Whether a difference in this field makes another experiment."""
    return field not in verdict.NEUTRAL


def differences(ours: dict, theirs: dict) -> dict[str, str]:
    """{field: "epochs 5 (reference 20)"} of configuration, protocol, weights, texture bank, categories of one model."""
    pairs = verdict.differing(_settled(ours, theirs), _settled(theirs, ours))
    return {field: f"{field} {here} (reference {there})" for field, (there, here) in pairs.items()}


def _settled(record: dict, other: dict) -> dict:
    """Every field of a run; one that is newer than the run had the default of the other's Config."""
    fields = {**other["paper_config"], **record["paper_config"], **record["config"], **record["protocol"]}
    bank = record.get("texture_bank")
    fields["weights"] = ", ".join(_tagged(w["name"], w["fingerprint"]) for w in measured.weights(record)) or "none"
    fields["texture_bank"] = _tagged(bank["name"], bank["fingerprint"]) if bank else "none"
    pictures = [_tagged(" ".join(bare(*place_of(record, c))), mark) for c, mark in record["data"].items()]
    return fields | {"trained_on": ", ".join(sorted(pictures))}


def _tagged(name: str, fingerprint: str) -> str:
    return f"{name} {fingerprint[:8]}"
