"""The training loop: named streams, bitwise resume, history, checkpoints that are never half."""

import numpy as np
import pytest
import torch

from adlib.common.errors import UserError
from adlib.common.seeds import generator, pick_device, seeded, stream
from adlib.embeddings import Embeddings, joined
from adlib.models import simplenet
from adlib.training import Training


class Channels(torch.nn.Module):
    channels, layers, fingerprint = (8, 16), (2, 3), "none"


def parts(epochs: int = 6):
    g = torch.Generator().manual_seed(1)
    arrays = [torch.randn(20, 8, 6, 6, generator=g).numpy(), torch.randn(20, 16, 3, 3, generator=g).numpy()]
    config = simplenet.Config(image_size=32, resize=None, epochs=epochs, eval_every=2)
    with seeded(0, "init"):
        net = simplenet.SimpleNet(config, backbone=Channels())
    return net, Embeddings([arrays], single=False)


def equal(a: dict, b: dict) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def test_streams_are_independent_of_each_other():
    """seed_x = first 8 bytes of sha256("seed:name"): hand-checkable and different for each name and seed."""
    import hashlib

    first = int.from_bytes(hashlib.sha256(b"3:noise").digest()[:8], "big") >> 1
    assert stream(3, "noise") == first
    assert len({stream(s, n) for s in range(3) for n in ("noise", "order", "init")}) == 9


def test_seeded_restores_the_global_generators():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with seeded(0, "anything"):
        torch.rand(3)
    assert torch.equal(torch.rand(1), expected)


def test_the_same_seed_gives_the_same_bytes():
    """CPU, equal threads: two trainings agree in every bit; another seed does not."""
    states = []
    for seed in (0, 0, 1):
        net, embeddings = parts()
        Training(net, embeddings, seed).run()
        states.append({k: v.clone() for k, v in net.state_dict().items()})
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


def test_an_epoch_with_replacement_draws_as_many_rows_but_some_twice():
    """N draws with replacement miss a share of (1 - 1/N)^N, about 1/e, of the rows; a permutation misses none."""
    net, embeddings = parts()
    whole = np.concatenate(Training(net, embeddings, 0)._order(1))
    assert sorted(whole) == list(range(20))
    net.replacement = True
    drawn = np.concatenate(Training(net, embeddings, 0)._order(1))
    assert len(drawn) == 20
    assert len(set(drawn)) < 20


def test_the_last_epoch_is_looked_at_whatever_the_interval():
    net, embeddings = parts(epochs=5)
    seen = []
    Training(net, embeddings, 0, watch=lambda epoch: seen.append(epoch) or {}).run()
    assert seen == [2, 4, 5]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, stop):
    """Killed in epoch stop + 1 and started again from the checkpoint: same weights, same history, bit by bit."""
    net, embeddings = parts()
    expected = Training(net, embeddings, 0, watch=lambda e: {"look": e}).run()

    broken, embeddings = parts()
    training = Training(broken, embeddings, 0, checkpoint=tmp_path / "c.pt", minutes=0, watch=lambda e: {"look": e})
    work = training._epoch

    def kill(epoch, optimizers):
        if epoch > stop:
            raise Interrupted
        return work(epoch, optimizers)

    training._epoch = kill
    with pytest.raises(Interrupted):
        training.run()

    fresh, embeddings = parts()
    again = Training(fresh, embeddings, 0, checkpoint=tmp_path / "c.pt", minutes=0, watch=lambda e: {"look": e})
    history = again.run()
    assert equal(net.state_dict(), fresh.state_dict())
    np.testing.assert_array_equal(history.drop(columns="seconds"), expected.drop(columns="seconds"))
    assert history.epoch.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_finished_training_is_not_repeated(tmp_path):
    """What follows training may be interrupted too: the last checkpoint holds the last epoch."""
    net, embeddings = parts()
    Training(net, embeddings, 0, checkpoint=tmp_path / "c.pt").run()
    fresh, embeddings = parts()
    again = Training(fresh, embeddings, 0, checkpoint=tmp_path / "c.pt")
    again._epoch = None  # would fail if called
    assert len(again.run()) == 6
    assert equal(net.state_dict(), fresh.state_dict())


def test_a_broken_checkpoint_is_one_sentence(tmp_path):
    (tmp_path / "c.pt").write_bytes(b"half of someth")
    net, embeddings = parts()
    with pytest.raises(UserError, match="delete it to start this run again"):
        Training(net, embeddings, 0, checkpoint=tmp_path / "c.pt").run()


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    """Writing fails half-way: one sentence, the older checkpoint still loads, no temporary file is left."""
    net, embeddings = parts(epochs=2)
    Training(net, embeddings, 0, checkpoint=tmp_path / "c.pt").run()
    before = (tmp_path / "c.pt").read_bytes()

    def full(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    net, embeddings = parts(epochs=3)
    with pytest.raises(UserError, match="No space left"):
        Training(net, embeddings, 0, checkpoint=tmp_path / "c.pt", minutes=0).run()
    assert (tmp_path / "c.pt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_history_has_a_row_per_epoch_with_terms_and_rates():
    net, embeddings = parts(epochs=4)
    history = Training(net, embeddings, 0, watch=lambda epoch: {"looked": float(epoch)}).run()
    assert history.epoch.tolist() == [1, 2, 3, 4]
    assert history.lr.tolist() == [1e-4] * 4
    assert history.lr1.tolist() == [2e-4] * 4
    assert history.looked.isna().tolist() == [True, False, True, False]


def test_a_loss_that_is_not_finite_stops_with_a_sentence():
    net, embeddings = parts()
    torch.nn.init.constant_(net.adapter[0].weight, float("nan"))
    with pytest.raises(UserError, match="not finite in epoch 1"):
        Training(net, embeddings, 0).run()


def test_joined_embeddings_are_the_concatenation():
    """Rows 0..2 of the first, 0..3 of the second part, in any order and mixed."""
    a, b = np.arange(3.0, dtype=np.float32)[:, None], 10 + np.arange(4.0, dtype=np.float32)[:, None]
    both = joined([Embeddings([[a]], single=True), Embeddings([[b]], single=True).subset([3, 2, 1, 0])])
    assert len(both) == 7
    assert both.take([6, 0, 3, 2])[:, 0].tolist() == [10.0, 0.0, 13.0, 2.0]
    assert both.subset([6, 1]).take([0, 1])[:, 0].tolist() == [10.0, 1.0]


def test_generators_live_on_their_device():
    assert generator(0, "noise").device.type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_cuda_without_a_gpu_is_one_sentence(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no GPU"):
        pick_device(name)


@pytest.mark.parametrize("name", ["gpu", "tpu:0", "meta"])
def test_unknown_devices_list_the_valid_ones(name):
    with pytest.raises(UserError, match="valid: auto, cpu, cuda"):
        pick_device(name)
