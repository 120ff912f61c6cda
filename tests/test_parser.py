"""How a command line is read: names wherever they stand, one sentence for what is wrong, and that before torch."""

import os
import typing

import pytest
from processes import without_torch

from adlib import commands, models, options
from adlib.__main__ import FLAGS, main


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("", "the command line needs COMMAND; valid: run, methods, "),
        ("--versoin", "unknown option '--versoin'; did you mean '--version'?"),
        ("batch", "batch needs FILE; see `adlib batch --help`"),
        ("export", "export needs RUN; see `adlib export --help`"),
        ("predict x", "predict needs PICTURES and --out; see `adlib predict --help`"),
        ("run", "run needs METHOD and DATASET; see `adlib run --help`"),
        ("run --epochs 3", "run needs METHOD and DATASET; "),
        ("run simplenet --epochs 3", "run needs DATASET; "),
        ("run --hlp", "unknown option '--hlp'; did you mean '--help'?"),
        ("run simplenet --hlp", "unknown option '--hlp'; did you mean '--help'?"),
        ("check x --papr y", "unknown option '--papr'; did you mean '--paper'?"),
        ("check x --paper", "--paper needs a value; "),
        ("list --form md", "unknown option '--form'; did you mean '--format'?"),
        ("list --format mdd", "unknown format 'mdd'; did you mean 'md'? valid: text, md, csv, json"),
        ("list a b c", "list has no use for b and c; see `adlib list --help`"),
        ("batch x --cores many", "--cores is 'many'; it must be an integer"),
        ("batch x --cores 0", "--cores is '0'; it must be an integer from 1 to 4096"),
        ("batch x --cores 1000000000", "--cores is '1000000000'; it must be"),
        ("predict x y --out=", "--out is ''; it must be the name of a file or folder"),
        (f"list {'x' * 300}", "runs is 'xxx"),
        (f"run simplenet textures --epochs {'9' * 5000}", "--epochs is '999"),
        (f"run simplenet textures --config {'[' * 60_000}", "--config is no JSON"),
        (f"run simplenet mtd?split_seed={'9' * 5000}", "split_seed '999"),
        ("batch x --dry-run=3", "--dry-run takes no value; "),
        ("run simplenet textures --seeds", "--seeds needs at least one value; "),
        ("run simplenet textures --seeds x", "--seeds is 'x'; it must be an integer"),
        ("run simplenet textures --together=1", "--together takes no value; "),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_sentence(argv, sentence, capsys):
    assert main(argv.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"adlib: {sentence}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [["predict", "x", "", "--out", "y"], ["predict", "", "x", "--out", "y"], ["predict", "x", "y", "--out", ""],
     ["batch", ""], ["check", "", "--paper", "simplenet"], ["list", ""], ["export", "x", "--onnx", ""],
     ["data", "verify", "mtd", "--root", ""], ["list", "a\nb"]],
)  # fmt: skip
def test_an_empty_path_is_no_working_directory(argv, capsys):
    assert main(argv) == 2
    assert "it must be the name of a file or folder" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["a\0b", "\udcff", "x" * 200_000])
def test_a_word_that_is_no_text_is_refused(word, capsys):
    assert main(["list", word]) == 2
    assert capsys.readouterr().err.startswith("adlib: the command line holds ")


def test_a_batch_file_that_is_a_pipe_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert main(["batch", str(tmp_path / "pipe")]) == 2
    assert "is no regular file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        ("rnu", "did you mean 'run'"),
        ("run simplnet textures", "did you mean 'simplenet'"),
        ("run simplenet texturs", "did you mean 'textures'"),
        ("run simplenet textures brik --epochs 2", "did you mean 'brick'"),
        ("run simplenet --epochs 1 textures brik", "did you mean 'brick'"),
        ("run --device cpu simplenet --layers 2 3 textures brik", "did you mean 'brick'"),
        ("run simplenet dtd", "dtd is a source of textures"),
        ("run simplenet dtd:images+mtd", "images"),
        ("run simplenet mtd?splt=seeded", "unknown mtd option 'splt'; did you mean 'split'"),
        ("run simplenet mtd?split=seeeded", "unknown mtd split 'seeeded'; did you mean 'seeded'"),
        ("run simplenet btad+mtd?split=seeeded", "unknown mtd split 'seeeded'; did you mean 'seeded'"),
        ("check tests --paper simplenettt", "unknown paper 'simplenettt'; did you mean 'simplenet'"),
        ("export /nope", "run folder /nope does not exist"),
        ("predict /nope x.png --out y", "run folder /nope does not exist"),
        ("batch nope.yml", "batch file nope.yml cannot be read (No such file or directory)"),
    ],
)
def test_a_wrong_name_is_answered_before_torch_is_imported(argv, meant):
    """One sentence and status 2; torch alone takes longer to import than the answer may take."""
    done = without_torch(*argv.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert meant in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "names", "rest"),
    [
        ("a b c", "a b c", ""),
        ("--device cpu a b c --epochs 1", "a b c", "--device cpu --epochs 1"),
        ("a --layers 2 3 b c", "a b c", "--layers 2 3"),
        ("a --seeds 0 1 b 01", "a b 01", "--seeds 0 1"),
        ("a --margin -1 b", "a b", "--margin -1"),
        ("--together a --epochs=1 b", "a b", "--together --epochs=1"),
        ("a --decay-at none b", "a b", "--decay-at none"),
        ("--epochs 1 -- a b", "a b", "--epochs 1"),
    ],
)
def test_names_are_told_from_the_values_of_options(argv, names, rest):
    assert options.names_first(argv.split(), FLAGS) == (names.split(), rest.split())


@pytest.mark.parametrize("method", models.SYSTEMS)
def test_every_setting_of_several_values_takes_numbers(method):
    """`names_first` counts on it: a second word would be taken for a name."""
    hints = typing.get_type_hints(models.get(method)[1])
    several = [hint for hint in hints.values() if options._is_tuple(hint)]
    assert {typing.get_args(hint)[0] for hint in several} <= {int, float}


def test_run_takes_its_names_after_options(monkeypatch):
    taken = []
    monkeypatch.setattr(commands, "run", lambda args: taken.append(args) or 0)
    assert main("run --device cpu simplenet --layers 2 3 textures --seeds 0 1 brick grass --epochs 1".split()) == 0
    (args,) = taken
    assert (args.method, args.dataset, args.categories) == ("simplenet", "textures", ["brick", "grass"])
    assert (args.device, args.seeds) == ("cpu", [0, 1])
    assert options.values(args, models.get("simplenet")[1]) == {"layers": (2, 3), "epochs": 1}


def test_export_needs_no_onnx(monkeypatch):
    """It is the only format; FILE is named after the run where none is given."""
    taken = []
    monkeypatch.setattr(commands, "export", lambda args: taken.append(args.onnx) or 0)
    for argv in ("export x", "export x --onnx", "export x --onnx y"):
        assert main(argv.split()) == 0
    assert taken == [None, None, "y"]
