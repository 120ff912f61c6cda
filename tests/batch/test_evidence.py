"""The committed evidence is a copy of runs, its tables are read from the copies, and README prints them."""

import json
import shutil

import made
import numpy as np
import pandas as pd
import pytest
import yaml
from compared_runs import FAIR, GOOD, run_of

import adlib
from adlib import figures, runs
from adlib.batch import evidence, kept_maps, pages
from adlib.batch.evidence import data_reports
from adlib.common.errors import UserError
from adlib.figures.maps import choose
from adlib.inference import colour_limits
from adlib.reports import comparison
from adlib.runs import fingerprint, proof


def page(*names: str) -> str:
    """A page with words of its own and places to fill."""
    places = "".join(f"<!-- {name}:begin -->\nwithout numbers\n<!-- {name}:end -->\n" for name in names)
    return f"before\n{places}after\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Data and two seeds of a small run, trained once; tests work on copies."""
    folder = tmp_path_factory.mktemp("world")
    made.folder_dataset(folder / "data", train=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLIB_DATA", str(folder / "data"))
        patch.setenv("ADLIB_RESULTS", str(folder / "results"))
        patch.setenv("ADLIB_CACHE", str(folder / "cache"))
        adlib.reproduce("simplenet", "folder", ["stripes"], [0, 1], made.CONFIG | {"epochs": 2}, device="cpu")
    return folder


@pytest.fixture
def finished(world, tmp_path, monkeypatch):
    """The runs, a notebook, and pages with marks; PROJECT points here."""
    for name in ("data", "results", "cache"):
        shutil.copytree(world / name, tmp_path / name)
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    entry = {"method": "simplenet", "dataset": "folder", "categories": ["stripes"], "seeds": [0, 1]}
    report = {"notebook": "run", "name": "report", "parameters": {"dataset": "folder"}}
    work = entry | {"config": made.CONFIG | {"epochs": 2}}
    (tmp_path / "batch.yml").write_text(yaml.safe_dump([work, report]))
    (tmp_path / "results" / "executed").mkdir(parents=True)
    (tmp_path / "results" / "executed" / "report.ipynb").write_text("{}")
    (tmp_path / "README.md").write_text(page("table", "start"))
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "README.md").write_text(page("table", "times"))
    monkeypatch.setattr(evidence, "PROJECT", tmp_path)
    monkeypatch.setattr(evidence, "data_reports", lambda folder: None)  # seconds for every data set; tested alone
    return tmp_path


def test_copies_give_the_same_numbers_as_the_runs(finished):
    """Metrics with intervals from the copies equal those from the run folders; no weights, no sheets of runs."""
    reference = evidence.collect([finished / "batch.yml"], finished / "reference")
    here, there = runs.find(reference / "runs"), runs.find(finished / "results" / "runs")
    assert here.metrics.equals(there.metrics)
    assert not list(reference.rglob("*.safetensors"))
    assert [path.name for path in (reference / "notebooks").iterdir()] == ["report.ipynb"]
    assert (reference / "tables" / "summary.csv").is_file()


def contenders_of(run):
    return [comparison.Contender("simplenet", "stripes", (run,))]


def drawn_of(run):
    """The maps that `heat_maps` shows of one run, below six pictures and masks: arrays with their colour limits."""
    shown = [ax.images[0] for ax in figures.heat_maps(contenders_of(run)).axes[12:]]
    return [(image.get_array(), image.get_clim()) for image in shown]


def test_a_copy_draws_what_its_run_draws_and_so_does_a_copy_of_it(finished, monkeypatch):
    """To one of 256 colours. The first seed's copy has the maps; put back for the run, it is copied with them."""
    monkeypatch.setattr(comparison, "places", lambda runs: {"folder": ["stripes"]})  # one system is enough here
    reference = evidence.collect([finished / "batch.yml"], finished / "reference")
    results = finished / "results" / "runs"
    run, copies = runs.find(results).runs[0], runs.find(reference / "runs").runs
    least = run.scores.index[run.scores.path.isin(comparison.found_by(contenders_of(run)).path[:4])]
    assert set(copies[0].shown_maps) == {*choose(run.scores, 3), *least}
    low, high = colour_limits(run.threshold())
    for row, kept in copies[0].shown_maps.items():
        assert kept == pytest.approx(run.maps[row], abs=(high - low) / 255)
    assert copies[0].maps is None
    assert copies[1].shown_maps == {}
    before, file = drawn_of(run), copies[0].path / "maps_shown.npz"
    content = file.read_bytes()
    assert len(content) < 50_000
    shutil.rmtree(results)
    shutil.copytree(reference / "runs", results)
    evidence.collect([finished / "batch.yml"], reference)
    proof.check(file.parent)
    assert file.read_bytes() == content
    for (array, limits), (other, same) in zip(before, drawn_of(runs.load(file.parent)), strict=True):
        np.testing.assert_allclose(other, array, atol=(high - low) / 255)
        assert limits == same


def test_maps_are_kept_of_compared_systems_from_the_first_seed_that_has_any():
    """Two systems on a category are a comparison, one is none; a seed without maps gives way to the next."""

    def of(method, seed, **files):
        run = run_of(method, FAIR if method == "spade" else GOOD, seed, files=files)
        run.path = f"{method} {seed}"
        return run

    whole = {"maps.npz": {}}
    alone = [of("padim", 0), of("padim", 1, **whole), of("padim", 2, **whole)]
    assert kept_maps.rows_kept(alone) == {}
    assert set(kept_maps.rows_kept([*alone, of("spade", 0, **whole)])) == {"padim 1", "spade 0"}


def test_the_comparison_s_files_replace_older_ones_but_for_its_maps(finished):
    """A table that is no longer made goes; pictures of the data sets stay out."""
    made_now, kept = finished / "results" / "comparison" / "reference", finished / "reference" / "comparison"
    for folder, names in ((made_now, ("a.csv", "maps_a.png")), (kept, ("old.csv",))):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text(name)
    evidence.collect([finished / "batch.yml"], finished / "reference")
    assert [path.name for path in kept.iterdir()] == ["a.csv"]


def test_runs_that_the_batch_does_not_name_stay_out(finished):
    """A trial with another setting is no part of the evidence."""
    adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG | {"epochs": 1}, device="cpu")
    reference = evidence.collect([finished / "batch.yml"], finished / "reference")
    assert {run.record["config"]["epochs"] for run in runs.find(reference / "runs")} == {2}


def test_a_batch_of_reports_adds_them_and_leaves_the_rest(finished):
    reference = evidence.collect([finished / "batch.yml"], finished / "reference")
    before = sorted(reference.rglob("*"))
    (finished / "results" / "executed" / "other.ipynb").write_text("{}")
    (finished / "more.yml").write_text(yaml.safe_dump([{"notebook": "run", "name": "other"}]))
    evidence.collect([finished / "more.yml"], reference)
    assert "other" not in (reference / "times.csv").read_text()  # never executed, so no time is known
    assert sorted(reference.rglob("*")) == sorted([*before, reference / "notebooks" / "other.ipynb"])


def test_the_state_of_the_data_is_part_of_the_evidence(finished, monkeypatch):
    """verify and describe of each data set here; a copy of MTD with three faults, each found and named."""
    import made_layouts

    made_layouts.count_as_official(monkeypatch, "mtd")
    made_layouts.make("mtd", finished / "data")
    made_layouts.make("dtd", finished / "data")
    data_reports(finished / "out")
    assert {"mtd.md", "dtd.md", "folder.md", "textures.md"} <= {p.name for p in (finished / "out").iterdir()}
    assert "no fault" in (finished / "out" / "mtd.md").read_text()
    assert str(finished) not in "".join(p.read_text() for p in (finished / "out").iterdir())
    done, _, said = (finished / "out" / "mtd_with_faults.md").read_text().partition("says of it")
    assert done.count("\n- ") == 3
    assert all(text in said for text in ("has no mask", "belongs to no image", "cannot be decoded", "the same pixels"))
    assert "mtd at mtd: 4 faults" in said


def test_readme_prints_the_table_of_the_copies(finished):
    reference = evidence.collect([finished / "batch.yml"], finished / "reference")
    text = (finished / "README.md").read_text()
    assert (reference / "tables" / "readme.md").read_text().strip() in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "without numbers" not in text


def test_stale_runs_are_no_evidence(finished, monkeypatch):
    """Numbers that the present code did not make are refused, with the folder's name."""
    monkeypatch.setattr(fingerprint, "code_fingerprint", lambda method: "other")
    with pytest.raises(UserError, match="made by older code"):
        evidence.collect([finished / "batch.yml"], finished / "reference")


def test_files_too_large_to_commit_are_refused(finished, monkeypatch):
    monkeypatch.setattr(evidence, "LARGEST", 10)
    with pytest.raises(UserError, match="more than a repository should hold"):
        evidence.collect([finished / "batch.yml"], finished / "reference")


def test_the_readme_s_table_says_where_pictures_come_from(finished):
    """A note of the table, e.g. of rescaled copies, stands below it in README, too."""
    (finished / "data" / "folder" / "PROVENANCE.txt").write_text("A copy scaled to half its size.\n")
    copies = adlib.reproduce("simplenet", "folder", ["stripes"], [5], made.CONFIG | {"epochs": 1}, device="cpu")
    text = pages.short_table(copies)
    assert "A copy scaled to half its size." in text


def test_an_ablation_s_numbers_rest_on_copies_of_its_runs(finished):
    """The variants' runs lie beside the others, so that README's tables do not list them; the base is copied once."""
    config = made.CONFIG | {"epochs": 2}
    adlib.reproduce("simplenet", "folder", ["stripes"], [0], config | {"adapter_layers": 0}, device="cpu")
    parameters = {"dataset": "folder", "categories": ["stripes"], "seeds": [0], "config": config}
    parameters |= {"grid": {"adapter_layers": [0]}, "investigation": {}}
    entry = {"notebook": "03_simplenet_ablation", "name": "ablation", "parameters": parameters}
    (finished / "ablation.yml").write_text(yaml.safe_dump([entry]))
    papermill = {"papermill": {"duration": 90.4}}
    sheet = {"metadata": papermill, "cells": [{"cell_type": "markdown", "source": ["four words ", "to read"]}]}
    (finished / "results" / "executed" / "ablation.ipynb").write_text(json.dumps(sheet))
    reference = evidence.collect([finished / "batch.yml", finished / "ablation.yml"], finished / "reference")
    copied = {place: runs.find(reference / place).runs for place in ("runs", "ablations")}
    assert [run.record["config"]["adapter_layers"] for run in copied["ablations"]] == [0]
    assert [run.record["config"]["adapter_layers"] for run in copied["runs"]] == [1, 1]
    (row,) = pd.read_csv(reference / "times.csv").to_dict("records")
    trained = sum(part[0].record["seconds"]["train"] for part in copied.values())
    assert (row["notebook"], row["words"], row["seconds"], row["training_seconds"]) == (
        "ablation",
        4,
        90,
        round(trained),
    )
