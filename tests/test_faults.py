"""Bad input on the command line: one clear sentence on stderr and exit status 2, never a traceback."""

import shutil
import subprocess
import sys
from pathlib import Path

import made
import numpy as np
import pytest
import torch
from PIL import Image

from adlib.__main__ import main

SMALL = '{"backbone": "tf_efficientnet_lite0", "image_size": 64, "resize": null, "epochs": 1, "eval_every": 0}'


@pytest.fixture
def data(small_world, tmp_path, monkeypatch):
    """A private copy of the data set, to be broken."""
    shutil.copytree(small_world / "data", tmp_path / "data")
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "folder" / "stripes"


@pytest.fixture
def run(small_world, tmp_path):
    """A private copy of the finished run."""
    source = next((small_world / "results").rglob("run.json")).parent
    return shutil.copytree(source, tmp_path / "run")


def refused(capsys, *argv: str) -> str:
    """The one sentence on stderr, after the lines of the stages (`run` where nobody watches); asserts exit status 2."""
    assert main(list(argv)) == 2
    *stages, text = capsys.readouterr().err.strip().splitlines()
    assert all(line.startswith(f"{argv[1]} {argv[2]}") for line in stages)
    assert text.startswith("adlib: ")
    return text


def train(*extra: str) -> tuple[str, ...]:
    return ("run", "simplenet", "folder", "stripes", "--config", SMALL, *extra)


def test_missing_data_root(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "nowhere"))
    text = refused(capsys, "run", "simplenet", "mvtec_ad", "bottle", "--config", SMALL)
    assert "nowhere" in text
    assert "ADLIB_DATA" in text


def test_unknown_category(data, capsys):
    assert "did you mean 'stripes'" in refused(capsys, "run", "simplenet", "folder", "stripe", "--config", SMALL)


def test_unknown_method_and_data_set(data, capsys):
    assert "valid:" in refused(capsys, "run", "simplenot", "folder")
    assert "valid: " in refused(capsys, "run", "simplenet", "foldr")


def test_misspelt_config_field(data, capsys):
    text = refused(capsys, "run", "simplenet", "folder", "stripes", "--config", '{"epoch": 3}')
    assert "did you mean 'epochs'" in text


def test_config_that_is_no_json(data, capsys):
    assert "no JSON" in refused(capsys, "run", "simplenet", "folder", "stripes", "--config", "{epochs: 3}")


@pytest.mark.parametrize("text", ["[1]", "5", '"abc"'])
def test_config_that_is_no_object(data, capsys, text):
    assert "JSON object" in refused(capsys, "run", "simplenet", "folder", "stripes", "--config", text)


@pytest.mark.parametrize("change", ['"margin": Infinity', '"dim": 1', '"backbone": "vit_tiny_patch16_224"'])
def test_config_that_cannot_be_built(data, capsys, change):
    config = SMALL[:-1] + f", {change}" + "}"
    refused(capsys, "run", "simplenet", "folder", "stripes", "--config", config)


def test_a_seed_named_twice(data, capsys):
    assert "twice" in refused(capsys, *train("--seeds", "0", "0"))


def test_a_text_file_named_png(data, capsys):
    (data / "normal" / "000.png").write_text("I am no picture")
    assert "000.png" in refused(capsys, *train())


def test_a_truncated_jpg(data, capsys):
    path = data / "normal" / "900.jpg"
    Image.fromarray(made.picture(0)[0]).save(path)
    path.write_bytes(path.read_bytes()[:400])
    assert "900.jpg" in refused(capsys, *train())


def test_a_mask_of_another_size(data, capsys):
    Image.fromarray(np.zeros((10, 12), np.uint8)).save(data / "masks" / "square" / "000.png")
    text = refused(capsys, *train())
    assert "000.png" in text
    assert "12x10" in text


def test_a_dangling_link(data, capsys):
    (data / "normal" / "800.png").symlink_to(data / "gone.png")
    assert "800.png" in refused(capsys, *train())


def test_cuda_without_a_gpu(data, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no GPU" in refused(capsys, *train("--device", "cuda"))


def test_a_run_folder_without_weights(run, data, capsys, tmp_path):
    (run / "model.safetensors").unlink()
    picture = str(data / "test" / "normal" / "000.png")
    assert "model.safetensors is missing" in refused(capsys, "predict", str(run), picture, "--out", str(tmp_path / "o"))


def test_a_run_folder_with_broken_weights(run, data, capsys, tmp_path):
    (run / "model.safetensors").write_bytes(b"half")
    picture = str(data / "test" / "normal" / "000.png")
    assert "model.safetensors" in refused(capsys, "predict", str(run), picture, "--out", str(tmp_path / "o"))


def test_a_folder_that_is_no_run(data, capsys, tmp_path):
    assert "no finished run" in refused(capsys, "predict", str(tmp_path), str(data), "--out", str(tmp_path / "o"))


def test_a_picture_that_does_not_exist(run, data, capsys, tmp_path):
    assert "does not exist" in refused(capsys, "predict", str(run), str(data / "x.png"), "--out", str(tmp_path / "o"))


def test_a_folder_without_pictures(run, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    text = refused(capsys, "predict", str(run), str(tmp_path / "empty"), "--out", str(tmp_path / "o"))
    assert "holds no picture" in text


def test_an_output_folder_that_is_a_file(run, data, capsys, tmp_path):
    (tmp_path / "o").write_text("")
    picture = str(data / "test" / "normal" / "000.png")
    assert "cannot be written" in refused(capsys, "predict", str(run), picture, "--out", str(tmp_path / "o"))


def test_weights_folder_that_does_not_exist(data, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("ADLIB_WEIGHTS", str(tmp_path / "none"))
    assert "ADLIB_WEIGHTS" in refused(capsys, *train())


def test_weights_that_are_nowhere(data, capsys, monkeypatch):
    """A backbone that is neither in a folder, nor packaged, nor to be had from the hub: says what to do."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = '{"backbone": "resnet18.tv_in1k", "image_size": 64, "resize": null}'
    text = refused(capsys, "run", "simplenet", "folder", "stripes", "--config", config)
    assert "resnet18" in text
    assert "tf_efficientnet_lite0" in text


def test_a_weight_file_of_another_network(data, capsys, monkeypatch, tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "tf_efficientnet_lite0.safetensors")
    monkeypatch.setenv("ADLIB_WEIGHTS", str(tmp_path))
    assert "does not fit the backbone" in refused(capsys, *train())


def test_a_disk_that_is_really_full(data, capsys, tmp_path, monkeypatch):
    """/dev/full answers every write with ENOSPC."""
    from adlib import images

    if not Path("/dev/full").is_char_device():
        pytest.skip("/dev/full, the device that is always full, is missing on this system")
    real = images.Path.open

    def full(self, mode="r", *args, **kwargs):
        return open("/dev/full", mode) if self.suffix == ".tmp" and "w" in mode else real(self, mode, *args, **kwargs)

    monkeypatch.setattr(images.Path, "open", full)
    assert "No space left on device" in refused(capsys, *train())


def test_a_place_that_takes_no_folder(data, capsys, monkeypatch):
    """/proc says of a new folder in it that it does not exist."""
    monkeypatch.setenv("ADLIB_RESULTS", "/proc/x")
    text = refused(capsys, *train())
    assert "/proc/x" in text
    assert "ADLIB_RESULTS" in text


@pytest.mark.parametrize("name", ["DATA", "RESULTS", "CACHE"])
def test_a_root_that_is_nobody_s_home(data, capsys, monkeypatch, name):
    monkeypatch.setenv(f"ADLIB_{name}", "~nobody-at-all")
    assert f"ADLIB_{name} is '~nobody-at-all'" in refused(capsys, *train())


def test_more_memory_than_there_is_is_refused_before_a_picture_is_opened(data, capsys):
    """4096 pictures of side 4096 in a batch: 8 TB at the least."""
    config = SMALL.replace('"image_size": 64', '"image_size": 4096')[:-1] + ', "batch_size": 4096}'
    text = refused(capsys, "run", "simplenet", "folder", "stripes", "--config", config)
    assert "with batch_size 4096 at image_size 4096 needs" in text


def test_a_category_does_not_lead_out_of_its_data_set(data, capsys, monkeypatch):
    """Where normal/ lies in the data set's own folder, the one category may be called anything; not a path."""
    monkeypatch.setenv("ADLIB_DATA", str(data.parent.parent / "own"))
    shutil.copytree(data, data.parent.parent / "own" / "folder")
    for name in ("..", "/etc", "a/b"):
        text = refused(capsys, "run", "simplenet", "folder", name, "--config", SMALL)
        assert f"category '{name}' of folder is no name" in text


def test_help_does_not_wait_for_torch():
    """The command line answers --help without importing torch."""
    code = (
        "import sys, adlib.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
