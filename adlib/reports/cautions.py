"""What to know before a finished run decides anything, as sentences: about its pictures, and about its threshold.

Tables, notebooks, `run`, `list` and `predict` print these, and no others.
"""

import math

from adlib.reports import measured

LOW = 0.5  # recall at the threshold, below which a run misses more defects than it finds


def cautions(records: list[dict], categories: list[str] | None = None) -> list[str]:
    """Sentences on finished runs (contents of run.json), of all categories or of some; none where nothing is wrong.

    First what the runs found wrong with their pictures (see adlib.data.cautions), then, for each setting and category,
    where the recall at the threshold is below LOW. Runs without labels, or older than these facts, give none.
    """
    chosen = [record | {"per_category": _some(record, categories)} for record in records]
    return measured.sentences(chosen, lambda facts: facts.get("warnings") or []) + thresholds(chosen)


def _some(record: dict, categories: list[str] | None) -> dict:
    known = record.get("per_category") or {}
    return {c: facts for c, facts in known.items() if categories is None or c in categories}


def thresholds(records: list[dict]) -> list[str]:
    """The part on thresholds of `cautions`: "METHOD DATASET (CATEGORY), HASH: recall ..."."""
    alike: dict[tuple, list[dict]] = {}
    for record in records:
        for category, facts in record["per_category"].items():
            key = (record["method"], record["dataset"], category, record.get("hash"))
            alike.setdefault(key, []).append(facts)
    return [
        f"{method} {dataset} ({category}), {identity}: {text}"
        for (method, dataset, category, identity), several in alike.items()
        if (text := _missed(several))
    ]


def _missed(several: list[dict]) -> str | None:
    """Of the runs of one setting, an element a seed: how little they find, and what would and would not mend it."""
    recalls = [(facts["metrics"].get("recall@threshold"), facts.get("threshold")) for facts in several]
    low = [(recall, threshold) for recall, threshold in recalls if recall is not None and recall < LOW and threshold]
    if not low:
        return None
    values = sorted(recall for recall, _ in low)
    recall = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (values[0], values[-1])))
    seeds = f" in {len(low)} of {len(several)} seeds" if len(several) > 1 else ""
    return f"recall {recall} at the threshold{seeds}, which {_standing(low[0][1])}"


def _standing(threshold: dict) -> str:
    """What the threshold stands on; n, level and alpha are those of `metrics.threshold`."""
    n, level, alpha = threshold["n"], threshold["level"], threshold["alpha"]
    enough = math.ceil(1 / alpha - 1 - 1e-9)  # the fewest at which level is at most alpha
    wanted = f"{100 * alpha:.3g} %"
    if threshold.get("source") != "holdback":
        return (
            f"comes from the {n} images that were fitted, so that no rate of false alarms is held; hold back {enough} "
            f"or more for {wanted} (setting holdback)"
        )
    if level > alpha + 1e-9:
        return (
            f"comes from only {n} held-back normal images: they hold the false alarms to {100 * level:.3g} %, and "
            f"{enough} or more would hold {wanted} (a larger holdback, or more normal pictures), which does not raise "
            "the recall"
        )
    return (
        f"comes from {n} held-back normal images, enough to hold the false alarms to {wanted}: most anomalous test "
        "images score no higher than normal ones"
    )
