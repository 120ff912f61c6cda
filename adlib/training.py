"""The one training loop: checkpoints, resume, time budget, history, progress.

Interrupted and resumed equals uninterrupted: a checkpoint holds what was learnt, all optimisers and schedulers, every
generator, the history and the place in the epoch; it is written aside and renamed, so there is never half of it. What
is frozen is not in it.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from adlib.backbones import Frozen
from adlib.common.errors import UserError
from adlib.common.files import written_whole
from adlib.common.seeds import generator, generator_states, restore_generators, seeded

SAVING_SHARE = 1 / 20  # of the time, at most, that writing checkpoints may take


class Unfinished(UserError):
    """Training left before its end, with a checkpoint: the time budget was used up or the process was asked to end."""

    status = 75  # EX_TEMPFAIL: try again


class Training:
    """Trains a detector on embeddings of normal images; `run()` returns the history, one row per epoch.

    checkpoint: file that is written every `minutes` (more rarely if writing takes long) and found again after an
    interruption; None = never. deadline: `time.monotonic()` at which to save and leave. watch(epoch): called every
    config.eval_every epochs with the fitted detector in eval mode; returns values for the history (the oracle rows); it
    may not change the detector.
    """

    def __init__(
        self,
        detector,
        embeddings,
        seed: int,
        device: str = "cpu",
        checkpoint: Path | None = None,
        minutes: float = 2.0,
        watch: Callable[[int], dict] | None = None,
        deadline: float = float("inf"),
    ):
        self.detector, self.embeddings, self.seed, self.device = detector, embeddings, seed, device
        self.config, self.checkpoint, self.minutes, self.watch = detector.config, checkpoint, minutes, watch
        self.deadline, self.asked_to_end = deadline, False
        self.order = generator(seed, "order")  # always on the CPU: the same batches on every device
        self.noise = generator(seed, "noise", device)
        self.history: list[dict] = []
        self.best: dict = {}
        self.fit_seconds = 0.0
        self.pending: dict | None = None  # an epoch that was left in its middle
        trains = detector.trains and self.config.epochs != 0
        self.steps_per_epoch = _steps_per_epoch(detector, len(embeddings)) if trains else 1
        self.total_steps = (self.config.steps or self.config.epochs * self.steps_per_epoch) if trains else 0
        self.epochs = -(-self.total_steps // self.steps_per_epoch)

    def run(self) -> pd.DataFrame:
        """Train to the last step, from the checkpoint if there is one, and fit. Raises Unfinished, UserError."""
        if self.total_steps:
            self._train()
        else:
            self.detector.prepare(self.embeddings, self.noise)
        self._fit()
        self.detector.eval()
        return pd.DataFrame(self.history, columns=None if self.history else ["epoch", "seconds"])

    def _train(self) -> None:
        resumed = self._load() if self.checkpoint is not None and self.checkpoint.is_file() else None
        # on resume, too: what it sets aside from the stored state is needed again
        self.detector.prepare(self.embeddings, self.noise)
        optimizers = self.detector.optimizers(self.steps_per_epoch, self.total_steps)
        if resumed is not None:
            self._restore(resumed, optimizers)
        self.saved, self.saving = time.monotonic(), 0.0
        with self._terminated_is_asked():
            for epoch in self._epochs():
                self.history.append(self._epoch(epoch, optimizers))
                if self.watch and self._looks(epoch):
                    self._fit()
                    with seeded(self.seed, "watch"):
                        self.history[-1].update(self.watch(epoch))
                # after the last one, too: what follows training may be interrupted as well
                self._maybe_save(optimizers, epoch, last=epoch == self.epochs)

    def _fit(self) -> None:
        """Statistics of all embeddings, where a system collects some; a fresh stream, so looking changes nothing."""
        self.detector.eval()
        if not self.detector.fits:
            return
        before, start = [p._version for p in self.detector.parameters()], time.perf_counter()
        with torch.no_grad(), seeded(self.seed, "fit"):
            self.detector.fit(self.embeddings, generator(self.seed, "fit", self.device))
        if [p._version for p in self.detector.parameters()] != before:
            raise TypeError(f"{type(self.detector).__name__}.fit changed parameters; it may write buffers only")
        self.fit_seconds += time.perf_counter() - start

    def _looks(self, epoch: int) -> bool:
        """Whether to look at the test set: every `eval_every` epochs and after the last one."""
        every = self.config.eval_every
        return bool(every) and (epoch % every == 0 or epoch == self.epochs)

    def _order(self, epoch: int) -> list[np.ndarray]:
        """Rows of an epoch's batches: a permutation, or as many draws with replacement."""
        n, size = len(self.embeddings), self.config.batch_size
        if self.detector.replacement:
            order = torch.randint(n, (n,), generator=self.order).numpy()
        else:
            order = torch.randperm(n, generator=self.order).numpy()
        batches = np.array_split(order, range(size, n, size))
        return batches[: min(self.steps_per_epoch, self.total_steps - (epoch - 1) * self.steps_per_epoch)]

    def _epochs(self) -> Iterator[int]:
        first = len(self.history) + 1
        return tqdm(range(first, self.epochs + 1), "epochs", disable=None, leave=False)

    def _epoch(self, epoch: int, optimizers: list[tuple]) -> dict:
        self.detector.train()
        state = self.pending or {"order": self._order(epoch), "done": 0, "sums": {}, "seconds": 0.0}
        self.pending = None
        start, left = time.perf_counter() - state["seconds"], state["order"][state["done"] :]
        for batch, rows in zip(self.embeddings.batches(left, self.device), left, strict=True):
            with self._autocast():
                terms = self.detector.step(batch, optimizers, self.noise)
            for _, scheduler in optimizers:
                if scheduler is not None:
                    scheduler.step()
            for name, value in terms.items():
                state["sums"][name] = state["sums"].get(name, 0.0) + value.detach().float() * len(rows)
            state["done"] += 1
            if state["done"] < len(state["order"]):
                state["seconds"] = time.perf_counter() - start
                self._maybe_save(optimizers, epoch, pending=state)
        count = sum(len(rows) for rows in state["order"])
        means = {name: float(value) / count for name, value in state["sums"].items()}
        if not np.isfinite(list(means.values())).all():
            raise UserError(
                f"the loss is not finite in epoch {epoch}: {means}; lower the learning rate or check the images"
            )
        rates = {f"lr{i or ''}": opt.param_groups[0]["lr"] for i, (opt, _) in enumerate(optimizers)}
        return {"epoch": epoch, **means, **rates, "seconds": time.perf_counter() - start}

    def _autocast(self):
        kind = torch.device(self.device).type
        if self.config.precision != "bfloat16":
            return contextlib.nullcontext()
        # without the cache of cast weights, which a second optimiser's step would find stale
        return torch.autocast(kind, torch.bfloat16, cache_enabled=False)

    def _maybe_save(self, optimizers: list[tuple], epoch: int, last: bool = False, pending: dict | None = None) -> None:
        """Save where it is time to; leave where the time is over or the process was asked to end."""
        now = time.monotonic()
        leaving = (now >= self.deadline or self.asked_to_end) and not last
        due = now - self.saved >= max(60 * self.minutes, self.saving / SAVING_SHARE)
        if self.checkpoint is not None and (due or last or leaving):
            self._save(optimizers, pending)
            self.saving = time.monotonic() - now
            self.saved = time.monotonic()
        if leaving:
            raise Unfinished(f"unfinished, epoch {epoch} of {self.epochs}; the same command goes on from here")

    @contextlib.contextmanager
    def _terminated_is_asked(self) -> Iterator[None]:
        """Inside, SIGTERM, as schedulers send it, ends training after the present step, with a checkpoint."""
        if threading.current_thread() is not threading.main_thread() or self.checkpoint is None:
            yield
            return

        def ask(_signal, _frame):
            self.asked_to_end = True

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _save(self, optimizers: list[tuple], pending: dict | None) -> None:
        state = {
            "model": learnt_state(self.detector, copy=False),
            "optimizers": [(o.state_dict(), s.state_dict() if s else None) for o, s in optimizers],
            "generators": (self.order.get_state(), self.noise.get_state()),
            "world": generator_states(),
            "cuda": torch.cuda.get_rng_state(self.device) if torch.device(self.device).type == "cuda" else None,
            "history": self.history,
            "best": self.best,
            "pending": pending and {**pending, "order": [torch.from_numpy(rows) for rows in pending["order"]]},
        }
        try:
            with written_whole(self.checkpoint) as scratch:
                torch.save(state, scratch)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
            raise UserError(
                f"checkpoint {self.checkpoint} cannot be written ({error}); free space or set ADLIB_RESULTS"
            ) from error

    def _load(self) -> dict:
        try:
            return torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        except Exception as error:
            raise UserError(
                f"checkpoint {self.checkpoint} cannot be read ({error}); delete it to start this run again"
            ) from error

    def _restore(self, state: dict, optimizers: list[tuple]) -> None:
        load_learnt(self.detector, state["model"])
        for (optimizer, scheduler), (o, s) in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(o)
            if scheduler is not None:
                scheduler.load_state_dict(s)
        order, noise = (g.cpu() for g in state["generators"])
        self.order.set_state(order)
        self.noise.set_state(noise)
        restore_generators(state["world"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"].cpu(), self.device)
        self.history, self.best, self.pending = state["history"], state["best"], state["pending"]
        if self.pending:
            self.pending["order"] = [rows.cpu().numpy() for rows in self.pending["order"]]

    def keep_best(self, epoch: int, value: float) -> None:
        """Remember the learnt state of the best value so far (ties: the earliest). For the oracle row only."""
        if not self.best or value > self.best["value"]:
            self.best = {"epoch": epoch, "value": value, "state": learnt_state(self.detector)}


def _steps_per_epoch(detector, count: int) -> int:
    size = detector.config.batch_size
    if not detector.drop_last:
        return -(-count // size)
    if count < size:
        raise UserError(f"batch_size {size} leaves no whole batch of {count} training images; use at most {count}")
    return count // size


def learnt_state(detector, copy: bool = True) -> dict[str, torch.Tensor]:
    """Parameters and buffers that training made; what is frozen is named by its fingerprint instead.

    copy: as tensors of their own on the host; else those of the detector itself, which go on changing with it.
    """
    frozen = _frozen_prefixes(detector)
    state = {k: v.detach() for k, v in detector.state_dict().items() if not k.startswith(frozen)}
    return {k: v.cpu().clone() for k, v in state.items()} if copy else state


def _frozen_prefixes(detector) -> tuple[str, ...]:
    # with duplicates: one network under two names is in the state twice
    modules = detector.named_modules(remove_duplicate=False)
    return tuple(f"{name}." for name, module in modules if isinstance(module, Frozen))


def load_learnt(detector, state: dict[str, torch.Tensor]) -> None:
    """Inverse of `learnt_state`. Buffers take the shape in which they were stored: a memory bank has as many rows as
    `fit` gave it. Raises UserError when the state belongs to another architecture.
    """
    for key, stored in state.items():
        _reshape_buffer(detector, key, stored)
    try:
        missing, unexpected = detector.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UserError(f"stored weights do not fit this model: {str(error).splitlines()[-1].strip()}") from error
    frozen = _frozen_prefixes(detector)
    missing = [k for k in missing if not k.startswith(frozen)]
    if missing or unexpected:
        raise UserError(f"stored weights do not fit this model: missing {missing[:3]}, unexpected {unexpected[:3]}")


def _reshape_buffer(detector, key: str, stored: torch.Tensor) -> None:
    *path, name = key.split(".")
    module = detector
    for step in path:
        module = getattr(module, step, None)
    buffers = getattr(module, "_buffers", {})
    if name not in buffers:
        return
    held = buffers[name]
    if held is None or held.shape != stored.shape:
        device = held.device if held is not None else _device_of(detector)
        buffers[name] = torch.empty_like(stored, device=device)


def _device_of(detector) -> torch.device:
    tensors = [*detector.parameters(), *detector.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")
