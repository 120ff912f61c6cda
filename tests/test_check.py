"""`adlib check`: what it takes, which exit status it gives, and how bad input is answered."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import made
import pytest
from written_runs import write_run

from adlib.__main__ import main
from adlib.common import paths
from adlib.reports import check


@pytest.fixture
def written(tmp_path) -> Path:
    """ours/ with a run of SimpleNet on bottle and theirs/ with its reference, both at the published 98.0."""
    write_run(tmp_path / "ours")
    write_run(tmp_path / "theirs")
    return tmp_path


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_check_hands_its_options_on_and_returns_the_report_s_status(written, capsys, monkeypatch, ok, status):
    asked = []

    def fake(finished, paper, known, *allowed):
        asked.append((len(finished), paper, known and len(known), *allowed))
        return SimpleNamespace(ok=ok, text=lambda kind: f"as {kind}")

    monkeypatch.setattr(check, "check", fake)
    ours, theirs = str(written / "ours"), str(written / "theirs")
    options = ["--paper", "simplenet", "--allow-incomparable", "--allow-missing", "--format", "md"]
    options += ["--reference", "none"]
    assert main(["check", ours, *options]) == status
    assert main(["check", ours, "--reference", theirs]) == status
    monkeypatch.setattr(paths, "PROJECT", written)  # without results/reference: an installed wheel, say
    assert main(["check", ours]) == status
    monkeypatch.chdir("/")
    assert main(["check", "ours"]) == status  # as every path of README: in the project's folder, if not in this one
    assert capsys.readouterr().out == "as md\n" + 3 * "as text\n"
    plain = (1, None, None, False, False)
    assert asked == [(1, "simplenet", None, True, True), (1, None, 1, False, False), plain, plain]


def test_check_takes_a_folder_or_one_run_and_fails_where_the_reference_is_not_reproduced(written, capsys):
    """98.0 is what the paper prints; against a reference of 90.0 it is not reproduced."""
    ours = next((written / "ours").rglob("run.json")).parent
    assert main(["check", str(ours), "--reference", str(written / "theirs")]) == 0
    write_run(written / "other", value=0.9)
    assert main(["check", str(written / "ours"), "--reference", str(written / "other")]) == 1
    assert main(["check", str(ours), "--paper", "simplenet", "--reference", "none"]) == 0
    capsys.readouterr()
    assert main(["check", str(ours), "--reference", str(written / "theirs"), "--format", "csv"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].startswith("table,dataset,category,system,metric,published")
    assert "note: reference: 1 reproduced" in printed.err


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["nowhere"], "nowhere does not exist; valid: a run folder"),
        (["text.txt"], "text.txt is a file; valid: a run folder"),
        (["empty"], "no finished run below empty"),
        (["ours", "--paper", "simplnet"], "unknown paper 'simplnet'; did you mean 'simplenet'?"),
        (["ours", "--reference", "nowhere"], "--reference nowhere is no folder; valid: a folder with finished runs"),
        (["ours", "--reference", "empty"], "no finished run below empty"),
        (["nowhere.yml"], "batch file nowhere.yml cannot be read"),
        (["text.yml"], "text.yml"),
        (["faults.yml"], "unknown method 'simplnet'"),
    ],
)
def test_bad_input_of_check_is_one_sentence(written, capsys, monkeypatch, argv, meant):
    monkeypatch.chdir(written)
    (written / "empty").mkdir()
    (written / "text.txt").write_text("text")
    (written / "text.yml").write_text("text")
    (written / "faults.yml").write_text("- {method: simplnet, dataset: textures, categories: [brick]}\n")
    assert main(["check", *argv]) == 2
    said = capsys.readouterr().err
    assert meant in said
    assert len(said.strip().splitlines()) == 1


def test_check_takes_a_batch_file_and_names_its_gaps(small_world, tmp_path, capsys, monkeypatch):
    """Of two seeds one is finished; of the second file none."""
    made.live_in(small_world, monkeypatch)
    config = json.dumps(made.CONFIG | {"epochs": 1})
    entry = f"- {{method: simplenet, dataset: folder, categories: [stripes], seeds: SEEDS, config: {config}}}\n"
    (tmp_path / "two.yml").write_text(entry.replace("SEEDS", "[0, 1]"))
    (tmp_path / "none.yml").write_text(entry.replace("SEEDS", "[5]"))
    run = next((small_world / "results" / "runs").rglob("run.json")).parent
    shutil.copytree(run, tmp_path / "reference" / run.name)
    command = ["check", str(tmp_path / "two.yml"), "--reference", str(tmp_path / "reference")]
    assert main(command) == 1  # a gate must not pass what was not run
    assert main([*command, "--allow-missing"]) == 0
    printed = capsys.readouterr().out
    assert "missing: simplenet folder stripes seed 1\n" in printed
    assert "seed 0" not in printed
    assert "No paper prints numbers of SimpleNet on folder." in printed
    assert main(["check", str(tmp_path / "none.yml")]) == 2
    assert "none.yml is finished; `python -m adlib batch" in capsys.readouterr().err


def test_what_a_csv_cannot_hold_is_said_beside_it(written, capsys, monkeypatch):
    """Rescaled pictures, or that nothing was comparable: programs read stdout, people stderr."""
    notes = ["Nothing was comparable.", "A rescaled copy."]
    result = SimpleNamespace(ok=False, notes=notes, text=lambda kind: "x\n1\n")
    monkeypatch.setattr(check, "check", lambda *_, **__: result)
    assert main(["check", str(written / "ours"), "--reference", "none", "--format", "csv"]) == 1
    printed = capsys.readouterr()
    assert printed.out.strip() == "x\n1"
    assert printed.err.splitlines() == ["note: Nothing was comparable.", "note: A rescaled copy."]
