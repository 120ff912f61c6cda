"""One run, from a plan to the files of its folder: embed, train, score, measure, write."""

import functools
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib import data, embeddings, evaluation, images, models
from adlib.common import paths
from adlib.common.files import locked
from adlib.common.seeds import reproducible_cuda, seeded, stream
from adlib.runs.fingerprint import code_fingerprint
from adlib.runs.record import record
from adlib.training import Training, learnt_state, load_learnt

PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "aupro@0.3", "pixel_f1_max (oracle)")
ORACLE = "(oracle best epoch)"


class Execution:
    """Does the work of one plan (`adlib.runs.Plan`) on a device; `finish(folder)` writes the run's files there."""

    def __init__(self, plan, device: str):
        self.plan, self.config, self.device = plan, plan.config, device
        self.seconds: dict[str, float] = {}
        self.draws: dict[str, np.ndarray] = {}  # bootstrap replicates of the pixel metrics
        self.size = plan.config.metric_size or plan.config.image_size
        self.streamed = False
        if torch.device(device).type == "cuda":
            reproducible_cuda()
            torch.cuda.reset_peak_memory_stats()

    def finish(self, folder: Path) -> None:
        """Train (or go on from the folder's checkpoint) and write run.json last."""
        self._load()
        for k in range(len(self.plan.categories)):
            self._truth(k)  # a mask that does not fit its image must not cost a training
        self._forget_other_code(folder)
        self._train(folder)
        found = self._measure()
        self.history.to_csv(folder / "history.csv", index=False, lineterminator="\n")
        self.table.to_csv(folder / "scores.csv", index=False, lineterminator="\n")
        from safetensors.torch import save

        state = {k: v.contiguous() for k, v in learnt_state(self.detector).items()}
        # as bytes, because safetensors' own writer turns a full disk into an error class of its own
        (folder / "model.safetensors").write_bytes(save(state, metadata={"method": self.plan.method}))
        if self.small is not None:
            # for pictures; the largest numbers of float16 stand in for what is beyond them
            np.savez_compressed(folder / "maps.npz", maps=self.small.clip(-65504, 65504).astype(np.float16))
        if self.draws:
            np.savez_compressed(folder / "replicates.npz", **self.draws)
        (folder / "run.json").write_text(json.dumps(record(self, found), indent=1, allow_nan=False) + "\n")

    def _forget_other_code(self, folder: Path) -> None:
        """A checkpoint of other code or another kind of device is not gone on with: the run would be neither."""
        stamp, here = folder / "made_by.txt", f"{code_fingerprint(self.plan.method)} {torch.device(self.device).type}\n"
        if (folder / "checkpoint.pt").is_file() and (not stamp.is_file() or stamp.read_text() != here):
            print("the checkpoint was made by other code or on another kind of device: starting over", file=sys.stderr)
            (folder / "checkpoint.pt").unlink()
        stamp.write_text(here)

    def _clock(self, name: str, start: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _load(self) -> None:
        start = time.perf_counter()
        detector_class, _ = models.get(self.plan.method)
        with seeded(self.plan.seed, "init"):
            self.detector = detector_class(self.config).to(self.device)
        self.pictures = [images.cached(t, self.config.geometry) for t in self.plan.tables]
        self._clock("decode", start)
        start = time.perf_counter()
        with locked(paths.cache_root() / "features.lock"):  # parallel seeds: one computes, the others find it
            self.embedded = [
                embeddings.embeddings(self.detector, p, f"{t.attrs['fingerprint']} {self.config.geometry}", self.device)
                for p, t in zip(self.pictures, self.plan.tables, strict=True)
            ]
        self._clock("embed", start)

    def _rows(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row numbers of category k: to fit, held back for the threshold, test."""
        table = self.plan.tables[k]
        fit, held = data.holdback(table, self.config.holdback)
        return fit.index.to_numpy(), held.index.to_numpy(), np.flatnonzero(table.split == "test")

    def _train(self, folder: Path) -> None:
        parts = [e.subset(self._rows(k)[0]) for k, e in enumerate(self.embedded)]
        training = Training(
            self.detector,
            parts[0] if len(parts) == 1 else embeddings.Joined(parts),
            self.plan.seed,
            self.device,
            folder / "checkpoint.pt",
            watch=lambda epoch: self._watch(epoch, training),
        )
        if self.plan.material is not None:
            self.detector.equip(self.plan.material, self.device)
        with seeded(self.plan.seed, "train"):
            self.history = training.run()
        self.best = training.best
        self.seconds["train"] = float(self.history["seconds"].sum())

    def _watch(self, epoch: int, training: Training) -> dict:
        """Image AUROC on the test set after this epoch: an oracle, recorded beside the last epoch."""
        start, values = time.perf_counter(), []
        for k, table in enumerate(self.plan.tables):
            rows = self._rows(k)[2]
            scored = evaluation.score_all(self.detector, self.embedded[k].subset(rows), evaluation.SMALL, self.device)
            values.append(evaluation.image_metrics(table.label.to_numpy()[rows], scored.scores, 0.0)["image_auroc"])
        training.keep_best(epoch, float(np.mean(values)))
        self._clock("watch", start)
        return {"image_auroc (oracle)": float(np.mean(values))}

    def _measure(self) -> dict[str, dict]:
        """Metrics per category of the last epoch; with `eval_every`, those of the best test epoch beside them."""
        start = time.perf_counter()
        found, tables, small = {}, [], []
        for k, category in enumerate(self.plan.categories):
            found[category], scored, draws = self._category(k)
            self.draws |= {f"{category}/{name}": values for name, values in draws.items()}
            tables.append(self._scores_table(k, category, scored, found[category]["threshold"]["tau"]))
            small.append(scored.small)
        self.table = pd.concat(tables, ignore_index=True)
        self.small = np.concatenate(small) if small[0] is not None else None
        if self.best:
            last = learnt_state(self.detector)
            load_learnt(self.detector, self.best["state"])
            for k, category in enumerate(self.plan.categories):
                oracle = self._category(k, replicates=False)[0]["metrics"]
                keys = [m for m in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro@0.3") if m in oracle]
                found[category]["metrics"] |= {f"{m} {ORACLE}": oracle[m] for m in keys}
            load_learnt(self.detector, last)
        self._clock("measure", start)
        return found

    def _category(self, k: int, replicates: bool = True) -> tuple[dict, evaluation.Scored, dict]:
        """Metrics and facts, scores with maps, and bootstrap replicates of the pixel metrics of category k."""
        table, embedded = self.plan.tables[k], self.embedded[k]
        fit, held, test = self._rows(k)
        normal_rows, source = (held, "holdback") if len(held) else (fit, "train (optimistic)")
        normal = evaluation.score_all(self.detector, embedded.subset(normal_rows), self.size, self.device)
        chosen = evaluation.thresholds(normal, source)
        labels = table.label.to_numpy()[test]
        truth = self._truth(k)
        pixel, draws = {}, {}
        large = len(test) * self.size**2 > evaluation.IN_MEMORY
        if large and truth.usable:
            self.streamed = True
            scored, pixel = evaluation.streamed_pixel_metrics(
                truth, self.detector, embedded.subset(test), self.size, self.device
            )
        else:
            drop = (lambda start, maps: None) if large else None
            scored = evaluation.score_all(self.detector, embedded.subset(test), self.size, self.device, drop)
            if scored.maps is not None and truth.usable:
                pixel = evaluation.pixel_metrics(truth, scored.maps) | self._published_masks(k, scored.maps)
                if replicates:
                    draws = evaluation.pixel_replicates(truth, scored.maps, stream(0, table.attrs["fingerprint"]))
        values = evaluation.image_metrics(labels, scored.scores, chosen["tau"])
        values |= {k: v for k, v in pixel.items() if k.startswith(PIXEL_METRICS)}
        values["mean_grey_auroc"] = evaluation.mean_grey_floor(self.pictures[k][test], labels)
        counts = {
            "fit": len(fit),
            "held": len(held),
            "normal": int((labels == 0).sum()),
            "anomalous": int(labels.sum()),
        }
        found = {"metrics": values, "threshold": chosen, "counts": counts, "pixel": truth.facts | pixel}
        return found | {"notes": table.attrs["notes"]}, scored, draws

    @functools.cache  # noqa: B019 - an Execution lives as long as its run
    def _truth(self, k: int) -> evaluation.PixelTruth:
        test = self.plan.tables[k].iloc[self._rows(k)[2]]
        return evaluation.PixelTruth(test, self.config.geometry.at(self.size), self.config.mask_rule)

    def _published_masks(self, k: int, maps: np.ndarray) -> dict[str, float]:
        """Pixel metrics with masks brought to the grid as the authors do, where that differs from the run's rule."""
        rule = self.detector.published_mask_rule
        if rule in (None, self.config.mask_rule):
            return {}
        test = self.plan.tables[k].iloc[self._rows(k)[2]]
        truth = evaluation.PixelTruth(test, self.config.geometry.at(self.size), rule)
        found = evaluation.pixel_metrics(truth, maps) if truth.usable else {}
        return {f"{name} ({rule} masks)": found[name] for name in ("pixel_auroc", "pixel_ap") if name in found}

    def _scores_table(self, k: int, category: str, scored: evaluation.Scored, tau: float) -> pd.DataFrame:
        test = self.plan.tables[k].iloc[self._rows(k)[2]]
        root = Path(test.attrs["root"])
        return pd.DataFrame(
            {
                "category": category,
                "path": [Path(p).relative_to(root).as_posix() for p in test.path],
                "label": test.label.to_numpy(),
                "defect": test.defect.to_numpy(),
                "score": scored.scores,
                "decision": (scored.scores > tau).astype(int),
            }
        )
