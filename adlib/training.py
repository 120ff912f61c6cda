"""The one training loop: seeds, checkpoints, resume, history, progress.

Interrupted and resumed equals uninterrupted: a checkpoint holds the model, all optimisers and schedulers, every
generator and the history; it is written beside its final place and renamed, so there is never half of one.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.common.errors import UserError
from adlib.common.seeds import generator


class Training:
    """Trains a detector on embeddings of normal images; `run()` returns the history, one row per epoch.

    checkpoint: file that is written every `minutes` and found again after an interruption; None = never.
    watch(epoch): called every config.eval_every epochs with the detector in eval mode; returns values for the history
    (the oracle rows); it may not change the detector.
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
    ):
        self.detector, self.embeddings, self.device = detector, embeddings, device
        self.config, self.checkpoint, self.minutes, self.watch = detector.config, checkpoint, minutes, watch
        self.order = generator(seed, "order")  # always on the CPU: the same batches on every device
        self.noise = generator(seed, "noise", device)
        self.history: list[dict] = []
        self.best: dict = {}
        self.steps = -(-len(embeddings) // self.config.batch_size)

    def run(self) -> pd.DataFrame:
        """Train to the last epoch, from the checkpoint if there is one."""
        if not self.detector.learns:
            start = time.perf_counter()
            self.detector.fit(self.embeddings, self.noise)
            return pd.DataFrame([{"epoch": 1, "seconds": time.perf_counter() - start}])
        resumed = self._load() if self.checkpoint is not None and self.checkpoint.is_file() else None
        if resumed is None:
            self.detector.prepare(self.embeddings, self.noise)
        optimizers = self.detector.optimizers(self.steps)
        if resumed is not None:
            self._restore(resumed, optimizers)
        saved = time.monotonic()
        for epoch in self._epochs():
            self.history.append(self._epoch(epoch, optimizers))
            if self.watch and self._looks(epoch):
                self.detector.eval()
                self.history[-1].update(self.watch(epoch))
            due = time.monotonic() - saved >= 60 * self.minutes or epoch == self.config.epochs
            if (
                self.checkpoint is not None and due
            ):  # the last one too: what follows training may be interrupted as well
                self._save(optimizers)
                saved = time.monotonic()
        self.detector.eval()
        return pd.DataFrame(self.history)

    def _looks(self, epoch: int) -> bool:
        """Whether to look at the test set: every `eval_every` epochs and after the last one."""
        every = self.config.eval_every
        return bool(every) and (epoch % every == 0 or epoch == self.config.epochs)

    def _order(self) -> np.ndarray:
        """Rows of one epoch: a permutation, or as many draws with replacement."""
        n = len(self.embeddings)
        if self.detector.replacement:
            return torch.randint(n, (n,), generator=self.order).numpy()
        return torch.randperm(n, generator=self.order).numpy()

    def _epochs(self):
        from tqdm import tqdm

        first = len(self.history) + 1
        return tqdm(range(first, self.config.epochs + 1), "epochs", disable=None, leave=False)

    def _epoch(self, epoch: int, optimizers: list[tuple]) -> dict:
        self.detector.train()
        start, sums = time.perf_counter(), {}
        order = self._order()
        for rows in np.array_split(order, range(self.config.batch_size, len(order), self.config.batch_size)):
            batch = self.embeddings.take(rows, self.device)
            with self._autocast():
                terms = self.detector.step(batch, optimizers, self.noise)
            for _, scheduler in optimizers:
                if scheduler is not None:
                    scheduler.step()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.detach() * len(rows)
        means = {name: float(value) / len(order) for name, value in sums.items()}
        if not np.isfinite(list(means.values())).all():
            raise UserError(
                f"the loss is not finite in epoch {epoch}: {means}; lower the learning rate or check the images"
            )
        rates = {f"lr{i or ''}": opt.param_groups[0]["lr"] for i, (opt, _) in enumerate(optimizers)}
        return {"epoch": epoch, **means, **rates, "seconds": time.perf_counter() - start}

    def _autocast(self):
        bf16 = self.config.precision == "bfloat16" and torch.device(self.device).type == "cuda"
        # without the cache of cast weights, which a second optimiser's step would find stale
        return torch.autocast("cuda", torch.bfloat16, cache_enabled=False) if bf16 else contextlib.nullcontext()

    def _save(self, optimizers: list[tuple]) -> None:
        state = {
            "model": self.detector.state_dict(),
            "optimizers": [(o.state_dict(), s.state_dict() if s else None) for o, s in optimizers],
            "generators": (self.order.get_state(), self.noise.get_state(), torch.get_rng_state()),
            "cuda": torch.cuda.get_rng_state(self.device) if torch.device(self.device).type == "cuda" else None,
            "history": self.history,
            "best": self.best,
        }
        scratch = self.checkpoint.with_suffix(".tmp")
        try:
            torch.save(state, scratch)
            os.replace(scratch, self.checkpoint)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
            scratch.unlink(missing_ok=True)
            raise UserError(
                f"checkpoint {self.checkpoint} cannot be written ({error}); free space or set ADLIB_RESULTS"
            ) from error

    def _load(self) -> dict | None:
        try:
            return torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        except Exception as error:
            raise UserError(
                f"checkpoint {self.checkpoint} cannot be read ({error}); delete it to start this run again"
            ) from error

    def _restore(self, state: dict, optimizers: list[tuple]) -> None:
        self.detector.load_state_dict(state["model"])
        for (optimizer, scheduler), (o, s) in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(o)
            if scheduler is not None:
                scheduler.load_state_dict(s)
        order, noise, world = (g.cpu() for g in state["generators"])
        self.order.set_state(order)
        self.noise.set_state(noise)
        torch.set_rng_state(world)
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"].cpu(), self.device)
        self.history, self.best = state["history"], state["best"]

    def keep_best(self, epoch: int, value: float) -> None:
        """Remember the learnt state of the best value so far (ties: the earliest). For the oracle row only."""
        if not self.best or value > self.best["value"]:
            self.best = {"epoch": epoch, "value": value, "state": learnt_state(self.detector)}


def learnt_state(detector) -> dict[str, torch.Tensor]:
    """Parameters and buffers that training made; what is frozen is named by its fingerprint instead."""
    # cloned: on the CPU the tensors would go on changing with the detector
    return {k: v.detach().cpu().clone() for k, v in detector.state_dict().items() if not _is_frozen(detector, k)}


def _is_frozen(detector, key: str) -> bool:
    return key.split(".")[0] in detector.frozen


def load_learnt(detector, state: dict[str, torch.Tensor]) -> None:
    """Inverse of `learnt_state`. Raises UserError when the state belongs to another architecture."""
    try:
        missing, unexpected = detector.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UserError(f"stored weights do not fit this model: {str(error).splitlines()[-1].strip()}") from error
    missing = [k for k in missing if not _is_frozen(detector, k)]
    if missing or unexpected:
        raise UserError(f"stored weights do not fit this model: missing {missing[:3]}, unexpected {unexpected[:3]}")
