"""The command line: names before torch, settings as options, formats, the one run below a folder, exit statuses."""

import argparse
import dataclasses
import io
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

import made
import pandas as pd
import pytest
import torch
from conftest import PROJECT
from PIL import Image
from processes import without_torch
from server import Served, serving

import adlib
from adlib import commands, inference, models, options, runs
from adlib.__main__ import main
from adlib.common import paths
from adlib.common.errors import UserError
from adlib.data.dataset import Archive, Source
from adlib.data.download import addresses
from adlib.models import config
from adlib.models.config import setting
from adlib.reports import cautions, printing
from adlib.runs import proof


@dataclass(frozen=True, kw_only=True)
class Made(config.Config):
    """A Config with every kind of field."""

    image_size: int = setting(64, low=8)
    # pixels of what
    # is above
    width: int = setting(3, low=1, high=9)
    rate: float = 0.5  # share, 10 % of all
    turned: bool = True
    names: tuple[str, ...] = ("a", "b")
    sides: tuple[int, ...] | None = None
    text: float | str = setting("auto", choices=(1.0, "auto"))
    told: int = dataclasses.field(default=1, metadata={"help": "from the metadata"})  # not from here


def parsed(*argv: str, config_class=Made) -> dict:
    """What the options of a Config make of a command line."""
    parser = argparse.ArgumentParser()
    options.add(parser, config_class)
    return options.values(parser.parse_args(argv), config_class)


def refused(capsys, *argv: str, status: int = 2) -> str:
    assert main(list(argv)) == status
    text = capsys.readouterr().err.strip()
    assert text.startswith("adlib: ")
    assert "\n" not in text
    return text


def test_methods_lists_every_method_with_its_paper_and_without_torch():
    done = without_torch("methods")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(models.SYSTEMS)
    assert "CVPR 2023" in done.stdout
    assert "ICCV 2021" in done.stdout
    assert max(map(len, lines)) <= 100


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert (stop.value.code, capsys.readouterr().out) == (0, f"adlib {adlib.__version__}\n")


@pytest.mark.parametrize("method", models.SYSTEMS)
def test_every_setting_of_every_method_is_an_option_with_help_range_and_default(method, capsys):
    """The parser is made from the Config, so a new field needs nothing here; and no field meets an option of `run`."""
    with pytest.raises(SystemExit) as stop:
        main(["run", method, "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(models.get(method)[1]):
        assert f"--{field.name.replace('_', '-')} " in shown
        assert options.comments(models.get(method)[1]).get(field.name), f"{field.name} has no help"
    for word in ("None", "null", "specs/", "False", "True"):  # what is typed, and nothing of the code
        assert word not in shown
    assert "avx512_bf16" in shown
    assert "integers from 0, one run each; default 0" in shown
    assert (
        "pixels per side of the evaluation grid; none: image_size, of tiles the longer side of the pictures; at least "
        "8 and at most 4096; default none" in shown
    )


def test_help_takes_the_comment_beside_a_field_the_one_above_it_or_the_metadata():
    parser = argparse.ArgumentParser()
    options.add(parser, Made)
    shown = " ".join(parser.format_help().split())
    assert "--width INTEGER pixels of what is above; at least 1 and at most 9; default 3" in shown
    assert "--rate NUMBER share, 10 % of all; default 0.5" in shown
    assert "--told TOLD" not in shown
    assert "from the metadata; default 1" in shown
    assert (
        "passes over the normal training images; 0: no training; at least 0 and at most 100000; default 100" in shown
    )  # inherited


def test_options_are_values_of_the_fields_types():
    """bool as true or false, none for None, tuples as several values, a number where float | str has one."""
    assert parsed() == {}
    assert parsed("--image-size", "32", "--rate", "1e-3") == {"image_size": 32, "rate": 1e-3}
    assert parsed("--turned", "false", "--names", "c", "--text", "1") == {"turned": False, "names": ("c",), "text": 1.0}
    assert parsed("--sides", "1", "2", "--text", "auto") == {"sides": (1, 2), "text": "auto"}
    assert parsed("--sides", "none", "--resize", "none") == {"sides": None, "resize": None}
    assert Made.from_dict(parsed("--sides", "1", "2")).sides == (1, 2)


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (("--width", "many"), "--width is 'many'; it must be an integer"),
        (("--width", "none"), "--width is 'none'"),
        (("--turned", "yes"), "true or false"),
        (("--sides", "1", "x"), "--sides is 'x'"),
        (("--width", "1", "--width", "2"), "--width is given twice, as 1 and as 2"),
    ],
)
def test_an_option_of_no_value_is_one_sentence(argv, meant):
    with pytest.raises(UserError, match=meant):
        parsed(*argv)


def test_options_and_json_combine_and_may_not_disagree():
    """The same value twice is no fault; JSON's list is the tuple of the option."""
    both = options.combined({"epochs": 2, "layers": (1, 2)}, {"layers": [1, 2], "dim": 8})
    assert both == {"epochs": 2, "layers": (1, 2), "dim": 8}
    with pytest.raises(UserError, match="--batch-size is 2, but --config has 3"):
        options.combined({"batch_size": 2}, {"batch_size": 3})


@pytest.fixture
def here(small_world, monkeypatch):
    """The environment of one finished run."""
    made.live_in(small_world, monkeypatch)
    return small_world


def test_run_takes_settings_as_options_and_says_a_line_per_stage_where_nobody_watches(here, capsys):
    """The options name the run of `small_world`, so it is loaded and nothing is trained."""
    settings = made.CONFIG | {"epochs": 1}
    flags = [x for k, v in settings.items() for x in (f"--{k}", "none" if v is None else str(v))]
    assert main(["run", "simplenet", "folder", "stripes", "--format", "csv", *flags]) == 0
    out, err = capsys.readouterr()
    assert "simplenet,folder,stripes" in out
    *stages, note = err.splitlines()
    assert stages == ["simplenet folder: data stripes; seeds 0", "simplenet folder: table, finished runs: 1"]
    assert note.startswith("note: folder (stripes): the training loss stayed where it is when nothing is learnt")
    assert len(list((here / "results").rglob("run.json"))) == 1


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (("--epochs", "-1"), "'epochs' is -1"),
        (("--loss", "l2"), "'loss' is 'l2'"),
        (("--margin", "inf"), "'margin' is inf; it must be at least 0.0 and at most 1000.0"),
        (("--seeds", "-1"), "seeds [-1] must be"),
        (("--seeds", "0", "0"), "twice"),
        (("--device", "tpu"), "unknown device 'tpu'"),
    ],
)
def test_a_wrong_value_is_one_sentence_before_the_line_of_any_stage(here, capsys, argv, meant):
    assert meant in refused(capsys, "run", "simplenet", "folder", "stripes", *argv)


def test_a_wrong_time_budget_is_one_sentence_before_the_line_of_any_stage(here, capsys, monkeypatch):
    monkeypatch.setenv("ADLIB_MINUTES", "soon")
    assert "ADLIB_MINUTES is 'soon'" in refused(capsys, "run", "simplenet", "folder", "stripes")


def test_what_is_copied_for_speed_is_equal():
    """Help does not wait for pandas, which `printing` imports."""
    assert (commands.FORMATS, commands.WIDTH) == (printing.FORMATS, printing.WIDTH)


def test_an_unknown_option_of_run_is_one_sentence(here, capsys):
    assert "did you mean '--epochs'" in refused(capsys, "run", "simplenet", "folder", "stripes", "--epocs", "3")


def test_list_names_the_runs_below_the_folder_and_prints_every_format(here, capsys):
    folder = here / "results" / "runs"
    assert main(["list", str(folder)]) == 0
    below = capsys.readouterr().out.partition(f"below {folder}:\n")[2]
    (run,) = (path.parent for path in folder.rglob("run.json"))
    assert below == f"current {run.relative_to(folder)}\n"
    assert main(["list", str(folder), "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["method"] == "simplenet"


def test_list_fits_100_columns(here, capsys):
    assert main(["list", str(here / "results" / "runs")]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_predict_takes_the_one_run_below_a_folder_and_names_files_by_the_picture(here, tmp_path, capsys):
    """007.png and 007.jpg lie in one folder: each keeps its ending; 008 needs none."""
    source = tmp_path / "pictures" / "crack"
    source.mkdir(parents=True)
    for name in ("007.png", "007.jpg", "008.png"):
        Image.fromarray(made.picture(1)[0]).save(source / name)
    out = tmp_path / "out"
    before = torch.get_num_threads()
    assert main(["predict", str(here / "results"), str(source.parent), "--out", str(out), "--device", "cpu"]) == 0
    assert torch.get_num_threads() == before
    assert {p.relative_to(out).as_posix() for p in out.rglob("*.png")} == {
        f"crack/{name}_{kind}.png" for name in ("007.png", "007.jpg", "008") for kind in ("map", "overlay")
    }
    text = capsys.readouterr().out
    assert "on cpu, CPU threads: " in text
    assert len(text.splitlines()) == 3


def test_no_two_pictures_share_the_names_of_their_files(tmp_path):
    """a.png would give a, which a.jpg gives too; b.png.bmp would give b.png, which is a picture of that name."""
    names = ["a.png", "a.jpg", "b.png", "b.png.bmp", "b.jpg", "c.png"]
    given = inference.output_names([tmp_path / name for name in names])
    assert len(set(given.values())) == len(names)
    assert given[tmp_path / "c.png"] == "c"


def test_predict_names_the_runs_where_there_are_several(here, tmp_path, capsys):
    """The first five, relative to the folder."""
    whole = next((here / "results").rglob("run.json")).parent
    record = proof.read(whole)
    for name in "abcdefg":
        shutil.copytree(whole, tmp_path / name)
        proof.write(tmp_path / name, record | {"hash": name})
    text = refused(capsys, "predict", str(tmp_path), str(here), "--out", str(tmp_path / "o"))
    assert text == f"adlib: {tmp_path} holds 7 runs; name the folder of one, below it: a, b, c, d, e and 2 more"


@pytest.mark.parametrize(("slow", "chosen"), [(1, 2), (2, 1)])
def test_the_faster_number_of_threads_is_measured(slow, chosen, monkeypatch):
    """A call that sleeps 10 ms with `slow` threads and 0 with the other; torch's own number is left as it was."""
    current = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: current[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: current.__setitem__(0, n))
    assert commands.fastest_threads(lambda: time.sleep(0.01 * (current[0] == slow))) == chosen
    assert current == [2]


def test_an_error_brings_its_own_exit_status(monkeypatch, capsys):
    """75: unfinished within the time budget; the class of the error says so, not the command line."""

    class Unfinished(UserError):
        status = 75

    def stop(*_args, **_kwargs):
        raise Unfinished("unfinished, epoch 3 of 20")

    monkeypatch.setattr(runs, "find", stop)
    assert "epoch 3 of 20" in refused(capsys, "list", status=75)


def test_an_error_of_the_disk_names_the_place(monkeypatch, capsys):
    """ENOSPC of a write has no file name; then the roots are named."""

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "find", full)
    text = refused(capsys, "list")
    assert str(paths.results_root()) in text
    assert "No space left on device" in text


def test_a_full_disk_behind_stdout_is_one_sentence():
    """/dev/full answers every write with ENOSPC; Python's own flush at exit would be a traceback and status 120."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "adlib", "methods"], cwd=PROJECT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.stderr.startswith("adlib: the output")
    assert done.returncode == 2


@pytest.mark.parametrize("command", [("batch", "x.yml"), ("evidence",)])
def test_what_needs_the_project_folder_says_so(command, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    assert "needs the project folder" in refused(capsys, *command)


def test_without_the_project_folder_the_roots_lie_in_the_home_folder(monkeypatch, tmp_path):
    """Never in site-packages."""
    monkeypatch.setattr(paths, "PROJECT", tmp_path / "site-packages")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DATA", "RESULTS", "CACHE"):
        monkeypatch.delenv(f"ADLIB_{name}", raising=False)
    roots = [paths.data_root(), paths.results_root(), paths.cache_root()]
    assert roots == [tmp_path / "adlib" / name for name in ("data", "results", ".cache")]


def test_addresses_prints_a_line_each_and_fails_where_a_file_has_none_left(monkeypatch, capsys):
    """Two of three addresses are dead: `whole` still has one, `gone` has none."""
    with serving({"/a.zip": Served(b"12345")}) as server:

        def source(name: str, *urls: str) -> Source:
            archive = Archive(f"{name}.zip", tuple(server.url(url) for url in urls))
            return Source((archive,), "", "", 1, "", "")

        made_sources = {"whole": source("whole", "/a.zip", "/b.zip"), "gone": source("gone", "/b.zip")}
        monkeypatch.setattr(addresses, "sources", lambda: made_sources)
        assert main(["data", "addresses"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines == [
            f"whole/whole.zip answers, 0.0 MB: {server.url('/a.zip')}",
            f"whole/whole.zip no answer, status 404: {server.url('/b.zip')}",
            f"gone/gone.zip   no answer, status 404: {server.url('/b.zip')}",
        ]
        made_sources["gone"] = source("gone", "/b.zip", "/c.zip")
        made_sources["again"] = source("again", "/b.zip", "/c.zip")
        assert main(["data", "addresses"]) == 1
        assert capsys.readouterr().out.splitlines()[6:] == [
            "gone/gone.zip: no address answers; `adlib data download` cannot fetch it",
            "again/again.zip: no address answers; `adlib data download` cannot fetch it",
        ]
        del made_sources["gone"], made_sources["again"]
        assert main(["data", "addresses"]) == 0


def test_run_says_what_is_wrong_with_the_pictures_before_training_once_and_with_the_table(
    tmp_path, capsys, monkeypatch
):
    """Two seeds of pictures of 30 x 90, one of them in train and test. Of finished runs the table alone says it; CSV
    and JSON stay readable for programs.
    """
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    base = made.folder_dataset(tmp_path / "data", train=10, normal=2, anomalous=2)
    for path in base.rglob("*.png"):
        Image.open(path).resize((30, 90)).save(path)
    (base / "test" / "normal" / "000.png").write_bytes((base / "normal" / "003.png").read_bytes())
    command = ["run", "simplenet", "folder", "--config", json.dumps(made.CONFIG | {"epochs": 1}), "--seeds", "0", "1"]
    twin = "1 test image is in the training images, too, e.g. stripes/test/normal/000.png = stripes/normal/003.png"
    shape = "pictures of 30 x 90 (width x height, median; aspect 3.0) are squashed to 64 x 64, distorted 3.0 times"
    assert main([*command, "--format", "csv"]) == 0
    printed = capsys.readouterr()
    assert len(pd.read_csv(io.StringIO(printed.out))) == 1
    notes = [line for line in printed.err.splitlines() if line.startswith("note: folder (stripes): ")]
    learnt = "the training loss stayed"  # after one pass over ten pictures
    assert [twin in notes[0], shape in notes[1], learnt in notes[2], len(notes)] == [True, True, True, 3]
    assert printed.err.index(notes[1]) < printed.err.index("training on")
    assert main([*command, "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert "note: " not in printed.err
    said = json.loads(printed.out)["notes"]
    assert ["note: " + note for note in said if note.startswith("folder (stripes): ")] == notes
    for format in ("text", "md"):
        assert main(["list", "--format", format]) == 0
        assert "1 test image is in the training images, too" in capsys.readouterr().out


def test_predict_says_what_is_known_of_the_runs_threshold_beside_its_results(here, tmp_path, capsys, monkeypatch):
    """With a bound that no recall reaches: the sentence of `list`, as a note on stderr."""
    monkeypatch.setattr(cautions, "LOW", 2.0)
    picture = tmp_path / "a.png"
    Image.fromarray(made.picture(1)[0]).save(picture)
    assert (
        main(["predict", str(here / "results"), str(picture), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    )
    printed = capsys.readouterr()
    (note,) = (line for line in printed.err.splitlines() if line.startswith("note: simplenet folder (stripes), "))
    assert (
        "at the threshold, which comes from only 5 held-back normal images: they hold the false alarms to 16.7 %"
        in note
    )
    assert main(["list", str(here / "results" / "runs"), "--format", "json"]) == 0
    assert note.removeprefix("note: ") in json.loads(capsys.readouterr().out)["notes"]
