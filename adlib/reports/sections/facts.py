"""What was run: work, data, settings, decisions, kinds of defects, speed, origin."""

import pandas as pd

from adlib import data, speed
from adlib.metrics import image_auroc
from adlib.reports import measured, printing
from adlib.reports.verdict import changed


def work_done(runs, title: str) -> str:
    """Markdown: how many runs of which system on which data, their training time, device and library versions.

    title: the system's name as the paper writes it.
    """
    records = [run.record for run in runs]
    machine = records[0]["machine"]
    seconds = sum(record["seconds"].get("train", 0) for record in records)
    categories = dict.fromkeys(c for record in records for c in record["per_category"])
    seeds = sorted({record["seed"] for record in records})
    packages = ", ".join(f"{p} {machine['versions'][p]}" for p in ("torch", "timm"))
    count = f"**{len(records)} {'run' if len(records) == 1 else 'runs'}**"
    which = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
    return (
        f"{count} of {title} on {records[0]['dataset']} ({', '.join(categories)}), {which}; trained on "
        f"{machine['device']} in {seconds:.0f} s altogether; {packages}."
    )


def mean_text(cell: dict | None) -> str:
    """A cell of `verdict.ours` as text: "92.5 ± 0.9 % [90.4, 94.5], n = 3 seeds"; None where nothing was measured."""
    if cell is None:
        return "not measured (no masks)"
    mean, sd, low, high = (printing.number(cell.get(k)) for k in ("mean", "sd", "low", "high"))
    bracket = "" if low == printing.DASH else f" [{low}, {high}]"
    spread = "" if sd == printing.DASH else f" ± {sd}"
    return f"{mean}{spread} %{bracket}, n = {cell['n_seeds']} {'seed' if cell['n_seeds'] == 1 else 'seeds'}"


def data_used(runs) -> pd.DataFrame:
    """Images of each category: fit (trained on), held (back, for the threshold), normal and anomalous (test), notes."""
    facts = {c: f for run in reversed(list(runs)) for c, f in run.record["per_category"].items()}
    columns = ["fit", "held", "normal", "anomalous"]
    rows = {
        c: {k: f["counts"][k] for k in columns} | {"notes": "; ".join(f.get("notes") or [])} for c, f in facts.items()
    }
    return pd.DataFrame.from_dict(dict(reversed(rows.items())), orient="index").rename_axis("category")


def decisions(runs) -> pd.DataFrame:
    """What the threshold decides, a row per category and seed: tau [score units], from n normal images, level, rates.

    level: share of false alarms that it allows; fpr, recall, precision, f1: on the test set, 0..1.
    """
    rows = [
        {"category": category, "seed": run.record["seed"]}
        | {k: facts["threshold"][k] for k in ("tau", "n", "level")}
        | {k: facts["metrics"][f"{k}@threshold"] for k in ("fpr", "recall", "precision", "f1")}
        for run in runs
        for category, facts in run.record["per_category"].items()
    ]
    return pd.DataFrame(rows).set_index(["category", "seed"]).sort_index(kind="stable").round(3)


def decided(runs) -> str:
    """Markdown: where each run's threshold lies between normal and anomalous test scores, a line per category.

    Counts are of test images. Where all anomalous scores are above all normal ones, misses or false alarms come from
    the threshold alone, and the line says so.
    """
    return "\n".join(_decided(run, category) for run in runs for category in run.record["per_category"])


def _decided(run, category: str) -> str:
    threshold, tests = run.record["per_category"][category]["threshold"], run.scores[run.scores.category == category]
    normal, anomalous = (tests[tests.label == label] for label in (0, 1))
    tau, top, bottom = (f"{value:.3g}" for value in (threshold["tau"], normal.score.max(), anomalous.score.min()))
    flagged, missed = int((normal.decision == 1).sum()), int((anomalous.decision == 0).sum())
    line = (
        f"- **{category}, seed {run.record['seed']}**: the threshold is {tau}, from {threshold['n']} held-back "
        f"pictures. The highest normal test score is {top}, the lowest anomalous one {bottom}. {flagged} of "
        f"{len(normal)} normal pictures are flagged, {missed} of {len(anomalous)} anomalous ones are missed."
    )
    if normal.score.max() < anomalous.score.min() and flagged + missed:
        line += (
            " The ranking is perfect: every error here is the threshold's. Any value between the two scores would "
            "avoid them all, but only the test labels say where that is."
        )
    return line


def kinds(run) -> pd.DataFrame:
    """What a run finds, a row per kind of defect, hardest first: images, found, AUROC; 0..1.

    found: share above the threshold, for normal images (AUROC is NaN) the false alarms; AUROC: against all normal
    images of the category.
    """
    return _kinds(run).round(3)


def _kinds(run) -> pd.DataFrame:
    rows = []
    for category, tests in run.scores.groupby("category", sort=False):
        normal = tests[tests.label == 0]
        for kind, images in tests.groupby("defect", sort=False):
            anomalous = bool(images.label.any())
            both = pd.concat([normal, images])
            auroc = image_auroc(both.label, both.score, one_class="nan") if anomalous else float("nan")
            row = {"category": category, "kind": kind, "images": len(images)}
            rows.append(row | {"found": images.decision.mean(), "AUROC": auroc})
    table = pd.DataFrame(rows).sort_values(["category", "AUROC"], kind="stable", na_position="last")
    return table.set_index(["category", "kind"])


def hardest(run) -> str:
    """A sentence: the kind of defect with the lowest AUROC in a run; or that all are at 100 %."""
    anomalous = _kinds(run).dropna()
    if not len(anomalous):
        return "No kind of defect was in the test."
    hard = anomalous.sort_values("AUROC", kind="stable").iloc[0]
    if hard.AUROC == 1:
        return "Every kind has an AUROC of 100 %: nothing here shows what the method misses."
    category, kind = hard.name
    return (
        f"Hardest kind: {category}, {kind}. {100 * hard.found:.0f} % of its images are found; its AUROC is "
        f"{100 * hard.AUROC:.1f} %."
    )


def changes(run) -> str:
    """Markdown: the settings in which a run differs from the paper's; a sentence where none does."""
    differing = changed(run.record)
    if not differing:
        return "This run has the paper's setting."
    rows = [(f"`{field}`", str(paper), str(here)) for field, (paper, here) in differing.items()]
    return pd.DataFrame(rows, columns=["setting", "paper", "here"]).to_markdown(index=False, disable_numparse=True)


def mirrored(resize_mode: str) -> str:
    """A sentence: whether the network sees more than the picture, by the geometry's `resize_mode`."""
    beyond = {"pad": "make it square", "tiles": "fill the last tile"}.get(resize_mode)
    if beyond is None:
        return f"With `resize_mode` {resize_mode} no pixels are added at the edges: the maps cover real pixels only."
    return f"The network sees more than the picture: its edges are mirrored to {beyond}. That part counts in no number."


def speed_table(run, device: str = "auto") -> pd.DataFrame:
    """Speed of a run's detector on the test images of its (first) category: `speed.speed`, with its attrs.

    Rows "network" and "end_to_end" for each batch size; milliseconds per call, fps in images per second.
    """
    table = data.load(run.record["dataset"], next(iter(run.record["per_category"])))
    measured_here = speed.speed(run.detector(), table.path[table.split == "test"].tolist(), device, seconds=0.3)
    rounded = measured_here.round(2)
    rounded.attrs = measured_here.attrs
    return rounded


def provenance(runs, notebook_seconds: float | None = None) -> pd.DataFrame:
    """What the numbers of a notebook come from, a row per fact: versions, device, weights, data, code, seconds.

    The first seed's runs name weights and data; `notebook_seconds` is the time of the notebook itself.
    """
    every = list(runs)
    first = [run for run in every if run.record["seed"] == every[0].record["seed"]]
    record, machine = first[0].record, first[0].record["machine"]
    networks = [f"{w['name']}, {w['fingerprint'][:12]}" for w in measured.weights(record)]
    prints = dict.fromkeys(f"{c} {f[:12]}" for run in first for c, f in run.record["data"].items())
    facts = {
        "python": machine["python"],
        **machine["versions"],
        "device": f"{machine['device']} ({machine['device_type']}), {machine['threads']} thread(s)",
        "weights": "; ".join(networks) or "none",
        "data": ", ".join(prints),
        "code": record["code"],
        "seconds": f"training {sum(run.record['seconds'].get('train', 0) for run in every):.0f}",
    }
    origin = measured.provenance([run.record for run in every])
    if origin:
        facts["data come from"] = "; ".join(origin)
    bank = record.get("texture_bank")
    if bank:
        facts["textures"] = f"{bank['name']}, {bank['count']}, {bank['fingerprint'][:12]}"
    if any(run.stale for run in first):
        facts["code"] += " (stale: the code changed since)"
    if notebook_seconds is not None:
        facts["seconds"] += f", this notebook {notebook_seconds:.0f}"
    return pd.Series(facts, name="value").to_frame()
