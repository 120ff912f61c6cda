"""Embeddings: computed once under a key that knows what decides them, on disk, joined, handed out in batches."""

from types import SimpleNamespace

import numpy as np
import pytest
import stubs
import torch

from adlib import embeddings as module
from adlib.common import memory
from adlib.common.errors import UserError
from adlib.embeddings import Embeddings, embeddings, joined

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8)


def counted(monkeypatch) -> list:
    calls, fill = [], module._fill
    monkeypatch.setattr(module, "_fill", lambda *arguments: calls.append(1) or fill(*arguments))
    return calls


def test_an_image_is_embedded_once_and_read_only_afterwards(monkeypatch):
    """The second call reads what the first wrote; the map is opened for reading, so 60 GB need no memory."""
    calls = counted(monkeypatch)
    detector = stubs.MemoryBank(stubs.Config())
    first, second = (embeddings(detector, IMAGES, "pictures") for _ in range(2))
    assert len(calls) == 1
    (array,) = second.parts[0]
    assert array.mode == "r"
    with torch.inference_mode():
        expected = detector.eval().embed(torch.from_numpy(IMAGES).float() / 255)[0]
    torch.testing.assert_close(second.take(range(5))[0], expected)
    assert torch.equal(first.take([3])[0], second.take([3])[0])


def cut(folder):
    (folder / "map0.npy").write_bytes((folder / "map0.npy").read_bytes()[:-100])


def lost(folder):
    (folder / "map0.npy").unlink()


def emptied(folder):
    (folder / "done").write_text("")


def overwritten(folder):
    content = (folder / "map0.npy").read_bytes()
    (folder / "map0.npy").write_bytes(content[:-100] + bytes(100))


def other_shape(folder):
    array = np.load(folder / "map0.npy")
    np.save(folder / "map0.npy", array.reshape(len(array), -1))


@pytest.mark.parametrize("damage", [cut, lost, emptied, overwritten, other_shape])
def test_a_damaged_cache_heals_itself(damage, tmp_path, monkeypatch):
    """A map that is cut short beside `done`, as a full disk or a copy leaves it: computed again, once."""
    calls = counted(monkeypatch)
    detector = stubs.MemoryBank(stubs.Config())
    first = embeddings(detector, IMAGES, "pictures").take(range(5))[0]
    (folder,) = (path.parent for path in (tmp_path / "cache").rglob("done"))
    damage(folder)
    for _ in range(2):
        assert torch.equal(embeddings(detector, IMAGES, "pictures").take(range(5))[0], first)
    assert len(calls) == 2


def test_a_warm_cache_is_only_read(tmp_path, monkeypatch):
    """On a read-only disk no lock, no folder and no file is made."""
    detector = stubs.MemoryBank(stubs.Config())
    embeddings(detector, IMAGES, "pictures")

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    for name in ("locked", "_fill"):
        monkeypatch.setattr(module, name, refuse)
    assert len(embeddings(detector, IMAGES, "pictures")) == 5
    with pytest.raises(UserError, match=r"features cannot be written to .*cache.*Read-only.*ADLIB_CACHE"):
        embeddings(detector, IMAGES, "other pictures")


def test_features_that_do_not_fit_on_the_disk_are_refused_before_they_are_written(tmp_path, monkeypatch):
    """The first batch tells how large all will be; nothing is left of it."""
    images = np.zeros((500, 3, 64, 64), np.uint8)
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda place: SimpleNamespace(free=1e6))
    with pytest.raises(UserError, match=r"the feature cache .* needs \d+ MB, 1 MB are free"):
        embeddings(stubs.MemoryBank(stubs.Config()), images, "pictures")
    assert [path.suffix for path in (tmp_path / "cache" / "features").iterdir()] == [".lock"]


def test_a_detector_in_training_mode_embeds_in_eval_mode():
    class Dropping(stubs.MemoryBank):
        def embed(self, images):
            return torch.nn.functional.dropout(images.mean((2, 3)), 0.5, self.training)

    made = embeddings(Dropping(stubs.Config()).train(), IMAGES, "pictures")
    assert (made.take(range(5)) > 0).all()


def test_two_systems_with_one_backbone_never_read_each_others_maps(monkeypatch):
    """The same images and weights, another definition of embed: another folder."""
    calls = counted(monkeypatch)

    class Doubled(stubs.MemoryBank):
        def embed(self, images):
            return tuple(2 * x for x in self.backbone(images))

    plain, doubled = (embeddings(cls(stubs.Config()), IMAGES, "pictures") for cls in (stubs.MemoryBank, Doubled))
    assert len(calls) == 2
    torch.testing.assert_close(doubled.take([0])[0], 2 * plain.take([0])[0])


def test_images_themselves_are_never_copied_to_the_cache(tmp_path):
    made = embeddings(stubs.DerivedImage(stubs.Config()), IMAGES, "pictures")
    assert made.parts[0][0] is IMAGES
    assert not (tmp_path / "cache").exists()
    assert made.take([1]).dtype == torch.float32
    assert made.take([1]).max() <= 1


def test_what_half_precision_cannot_hold_is_an_error():
    """65504 is the largest number of float16: a flow's features above it would silently become infinite."""

    class Loud(stubs.ThreeScales):
        embedding_fields = ()

        def embed(self, images):
            return images.mean((2, 3)) * 1e6

    with pytest.raises(UserError, match="more than float16 can store"):
        embeddings(Loud(stubs.Config()), IMAGES, "pictures")


def test_batches_of_several_maps_and_parts():
    """Two maps, two categories of 3 and 2 images, a subset of each: batches follow the order asked for."""
    maps = [np.arange(5.0, dtype=np.float32)[:, None], 10 * np.arange(5.0, dtype=np.float32)[:, None, None]]
    first, second = (Embeddings([[m[a:b] for m in maps]], single=False) for a, b in ((0, 3), (3, 5)))
    both = joined([first.subset([2, 0]), second])
    assert [len(both), both.nbytes] == [4, 4 * 8]
    batches = list(both.batches([np.array([3, 0]), np.array([1, 2])], "cpu"))
    assert [batch[0][:, 0].tolist() for batch in batches] == [[4.0, 2.0], [0.0, 3.0]]
    assert [batch[1][:, 0, 0].tolist() for batch in batches] == [[40.0, 20.0], [0.0, 30.0]]


def test_on_the_cpu_nothing_moves():
    made = Embeddings([[IMAGES]], single=True)
    assert made.resident("cpu") is made


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_resident_and_streamed_batches_are_equal(monkeypatch):
    """Held on the device as uint8 under half of its memory; else pinned, one batch ahead. Same numbers."""
    made = joined([Embeddings([[IMAGES[:3]]], single=True), Embeddings([[IMAGES[3:]]], single=True).subset([1, 0])])
    order = [np.array([4, 0]), np.array([2, 3, 1])]
    resident = made.resident("cuda")
    assert resident.parts[0][0].dtype == torch.uint8
    assert resident.parts[0][0].is_cuda
    monkeypatch.setattr(module, "RESIDENT_SHARE", 0.0)
    assert made.resident("cuda") is made
    for a, b in zip(resident.batches(order, "cuda"), made.batches(order, "cuda"), strict=True):
        assert torch.equal(a, b)
