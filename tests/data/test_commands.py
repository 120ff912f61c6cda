"""`python -m adlib data ...`: what is printed, and the exit status."""

import subprocess
import sys

import made_layouts
import pandas as pd
import pytest

from adlib.__main__ import main
from adlib.data import download as download_module
from adlib.data.inspection import describe as describe_module


@pytest.fixture
def tiles(tmp_path, monkeypatch):
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    made_layouts.count_as_official(monkeypatch, "mtd")
    return made_layouts.make("mtd", tmp_path)


def test_verify_of_a_clean_data_set_is_status_0(tiles, capsys):
    assert main(["data", "verify", "mtd"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith(f"mtd at {tiles}: no fault in 24 files\n")
    assert "| all        | train   | good     | 6        | 6 " in out
    assert err == ""  # no progress bar where stderr is no terminal


def test_verify_prints_one_line_for_every_fault_and_is_status_1(tiles, capsys):
    (tiles / "MT_Free/Imgs/exp1_num_99.jpg").write_bytes(b"")
    (tiles / "MT_Blowhole/Imgs/exp4_num_9.png").rename(tiles / "MT_Blowhole/Imgs/mask.png")
    assert main(["data", "verify", "mtd", "--root", str(tiles), "--category", "all"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[:4] == [
        "MT_Blowhole/Imgs/exp4_num_9.jpg: has no mask",
        "MT_Blowhole/Imgs/mask.png: belongs to no image",
        "MT_Free/Imgs/exp1_num_99.jpg: is empty (0 bytes)",
        "",
    ]
    assert out.endswith("3 faults in 23 files\n")


@pytest.mark.parametrize("arguments", [["nix"], ["mtd", "--category", "none"], ["btad"], ["mtd", "--root", "/nowhere"]])
def test_bad_input_is_one_sentence_and_status_2(tiles, capsys, arguments):
    assert main(["data", "verify", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("adlib: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "data needs ACTION; valid: list, verify, download, describe, addresses"),
        (["check"], "unknown action 'check'; valid: list, verify, download, describe, addresses"),
        (["lst"], "unknown action 'lst'; did you mean 'list'? valid: list, verify, download, describe, addresses"),
        (["verify"], "data verify needs NAME; see `adlib data verify --help`"),
        (["download"], "data download needs NAME; see `adlib data download --help`"),
        (["describe", "--categry", "x"], "unknown option '--categry'; did you mean '--category'? valid: -h, --help, "
         "--category"),
    ],
)  # fmt: skip
def test_an_incomplete_command_is_one_sentence_and_status_2(arguments, sentence, capsys):
    assert main(["data", *arguments]) == 2
    assert capsys.readouterr().err == f"adlib: {sentence}\n"


def test_the_guess_of_a_data_set_knows_no_case_dash_or_underscore(capsys):
    assert main(["data", "verify", "MVTec-AD"]) == 2
    assert "did you mean 'mvtec_ad'?" in capsys.readouterr().err


def test_describe_takes_sources_of_textures_and_lists_them(capsys):
    """`run` takes none, so its list has none."""
    assert main(["data", "describe", "nope"]) == 2
    assert "dagm, dtd, elpv" in capsys.readouterr().err
    assert main(["run", "simplenet", "nope"]) == 2
    assert "dagm, elpv" in capsys.readouterr().err


def test_list_names_every_data_set_and_where_it_lies(tiles, capsys):
    assert main(["data", "list"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == ["btad", "dagm", "dtd", "elpv", "folder", "mtd", "mvtec_ad", "textures"]
    assert lines["mtd"] == f"{tiles}: all"
    assert lines["btad"].startswith("missing at ")
    assert lines["textures"] == "embedded: brick, grass, gravel"


def test_download_hands_its_arguments_on(monkeypatch, capsys, tmp_path):
    calls = []
    monkeypatch.setattr(download_module, "download", lambda *args, **kw: calls.append((args, kw)) or tmp_path)
    assert main(["data", "download", "mtd"]) == 0
    assert main(["data", "download", "dtd", "--accept-licence", "--root", "x"]) == 0
    assert calls == [(("mtd", None), {"accept_licence": False}), (("dtd", "x"), {"accept_licence": True})]
    assert capsys.readouterr().out == f"{tmp_path}\n" * 2


def test_download_without_the_licence_says_how_to_accept_it(tmp_path, capsys):
    assert main(["data", "download", "mtd", "--root", str(tmp_path / "mtd")]) == 2
    assert "--accept-licence" in capsys.readouterr().err
    assert not (tmp_path / "mtd").exists()


def test_describe_prints_its_table(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(describe_module, "describe", lambda *args: calls.append(args) or pd.DataFrame({"x": [1]}))
    monkeypatch.setattr(describe_module, "text", lambda table: f"{len(table)} row")
    assert main(["data", "describe", "textures", "--category", "brick", "grass"]) == 0
    assert calls == [("textures", ["brick", "grass"])]
    assert capsys.readouterr().out == "1 row\n"


def test_a_reader_that_leaves_early_is_no_error():
    """`data list | head -1`: the pipe is closed under the command; no traceback, exit status 0."""
    call = f"{sys.executable} -m adlib data list | head -c 1; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True)
    assert found.stderr == ""
    assert found.stdout == "b0\n"  # the first letter of btad, and the status: not 120, which Python has for this
