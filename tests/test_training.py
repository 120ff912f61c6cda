"""The training loop: named streams, bitwise resume, history, checkpoints that are never half."""

import numpy as np
import pytest
import torch

from adlib.common.errors import UserError
from adlib.common.seeds import generator, pick_device, seeded, stream
from adlib.embeddings import Embeddings, joined
from adlib.models import simplenet
from adlib.training import Training, Unfinished, learnt_state


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


def test_a_checkpoint_holds_nothing_that_is_frozen(tmp_path):
    """The frozen network's tensors are named by their fingerprint; a checkpoint of WRN-50 would be 270 MB larger."""
    import stubs

    net = stubs.SecondFrozen(stubs.Config(eval_every=0))
    embeddings = Embeddings([[np.zeros((9, 3, 64, 64), np.uint8)]], single=True)
    Training(net, embeddings, 0, checkpoint=tmp_path / "c.pt").run()
    stored = torch.load(tmp_path / "c.pt", weights_only=True)["model"]
    assert set(stored) == {k for k in net.state_dict() if not k.startswith("perceptual.")}
    assert stored


def test_the_deadline_saves_within_an_epoch_and_says_how_far_it_came(tmp_path):
    """3 batches an epoch: over after the first step, so the checkpoint stands in epoch 1, and nothing is lost."""
    net, embeddings = parts(epochs=2)
    with pytest.raises(Unfinished, match="unfinished, epoch 1 of 2; the same command goes on") as left:
        Training(net, embeddings, 0, checkpoint=tmp_path / "c.pt", deadline=0.0).run()
    assert left.value.status == 75
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    assert (len(state["history"]), state["pending"]["done"]) == (0, 1)


def test_a_frozen_network_under_two_names_is_stored_under_neither(tmp_path):
    """Its tensors stand twice in the state: as teacher and as perceptual network."""
    import stubs

    net = stubs.SecondFrozen(stubs.Config(eval_every=0))
    net.teacher = net.perceptual
    assert {key.partition(".")[0] for key in learnt_state(net)} == {"autoencoder"}


def test_terms_in_half_precision_are_summed_in_full(monkeypatch):
    """0.7 in bfloat16 is 0.69921875; a sum of 2000 such terms in bfloat16 would stop growing at some 512."""
    net, _ = parts(epochs=1)
    embeddings = Embeddings([[np.zeros((16000, 8, 1, 1), np.float32)]], single=True)
    training = Training(net, embeddings, 0)
    monkeypatch.setattr(net, "step", lambda *_: {"total": torch.tensor(0.7, dtype=torch.bfloat16)})
    assert training.run().total.iloc[0] == pytest.approx(0.69921875, abs=1e-6)


def test_a_checkpoint_holds_all_global_generators(tmp_path):
    """Python's, NumPy's and torch's: a system should not use them, but if it does, resuming gives the same."""
    import random

    from adlib.common.seeds import generator_states, restore_generators

    with seeded(3, "anything"):
        torch.save(generator_states(), tmp_path / "s.pt")
        first = random.random(), np.random.rand(), torch.rand(1).item()
        restore_generators(torch.load(tmp_path / "s.pt", weights_only=True))
        assert (random.random(), np.random.rand(), torch.rand(1).item()) == first


def test_saving_takes_at_most_a_twentieth_of_the_time(tmp_path, monkeypatch):
    """A checkpoint that takes a second is written every 20 seconds, whatever `minutes` says."""
    net, embeddings = parts(epochs=1)
    training = Training(net, embeddings, 0, checkpoint=tmp_path / "c.pt", minutes=0)
    now, saves = [100.0], []
    monkeypatch.setattr("adlib.training.time.monotonic", lambda: now[0])

    def save(optimizers, pending):
        saves.append(now[0])
        now[0] += 1.0

    training._save, training.saved, training.saving = save, 100.0, 0.0
    for second in range(60):
        now[0] = max(now[0], 100.0 + second)
        training._maybe_save([], 1)
    assert saves == [100.0, 121.0, 142.0]


def test_sigterm_saves_and_leaves_as_unfinished(tmp_path):
    """A scheduler's signal in a process of its own: checkpoint written, exit status 75, the next call finishes."""
    import signal
    import subprocess
    import sys

    from conftest import PROJECT

    code = (
        "import os, pathlib, signal, sys\n"
        "sys.path[:0] = ['tests/helpers', 'tests']\n"
        "import test_training as t\n"
        "net, embeddings = t.parts(epochs=50)\n"
        "step, count = net.step, []\n"
        "def slow(*arguments):\n"
        "    count.append(1)\n"
        "    if len(count) == 4:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return step(*arguments)\n"
        "net.step = slow\n"
        "try:\n"
        f"    t.Training(net, embeddings, 0, checkpoint=pathlib.Path({str(tmp_path / 'c.pt')!r})).run()\n"
        "except t.Unfinished as error:\n"
        "    print(error, len(count))\n"
        "    sys.exit(error.status)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 75, done.stderr
    assert done.stdout.split() == "unfinished, epoch 2 of 50; the same command goes on from here 4".split()
    assert (tmp_path / "c.pt").is_file()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_budget_that_is_no_number_is_one_sentence(monkeypatch):
    import adlib

    monkeypatch.setenv("ADLIB_MINUTES", "soon")
    with pytest.raises(UserError, match="ADLIB_MINUTES is 'soon'; it must be a number of minutes"):
        adlib.reproduce("simplenet", "elpv")
