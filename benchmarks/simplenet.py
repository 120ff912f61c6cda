"""SimpleNet's speed: training from cached features, prediction, decoding; each beside its slow or rival form, in one
process.

    python benchmarks/simplenet.py                                  # embedded data and backbone
    python benchmarks/simplenet.py --dataset mvtec_ad --category bottle --backbone resnet18.tv_in1k --size 256

Training: the authors' code decodes, resizes and runs the frozen backbone anew in every pass; ours reads cached maps.
Both sides use our aggregation (the authors' own is slower still), the same threads, and take turns. Expected: >= 1.5x
on a CPU, >= 10x on a GPU. Prediction: anomalib's PatchcoreModel on the same backbone, its bank filled with 10 % random
rows in place of a coreset (the search costs the same). Decoding: the thread pool against one image after the other.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib import data, images
from adlib import speed as timing
from adlib.common import paths
from adlib.common.seeds import generator, pick_device
from adlib.embeddings import Embeddings
from adlib.models.simplenet import Config, SimpleNet

FOLDER = paths.PROJECT / "results" / "reference" / "benchmarks"
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="elpv")
    parser.add_argument("--category", default="mono")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=64, help="of the training images, so that an epoch stays short")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = pick_device(args.device)
    table = data.load(args.dataset, args.category)
    files = [Path(p) for p in table.path[(table.split == "train") & (table.label == 0)][: args.images]]
    config = Config(image_size=args.size, resize_mode="squash", resize=None, backbone=args.backbone)
    rows = training(config, files, device) + prediction(config, files, device) + decoding(config, files)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    where = f"{args.dataset}/{args.category}, {args.backbone}, {args.size} px, {len(files)} images; {name}, "
    where += f"{torch.get_num_threads()} threads, torch {torch.__version__}, load average {os.getloadavg()[0]:.1f}"
    write(pd.DataFrame(rows), where, f"simplenet_{args.dataset}_{args.category}_{device.split(':')[0]}")


def training(config: Config, files: list[Path], device: str) -> list[dict]:
    """Seconds of one pass over the images: cached maps against decoding and backbone each time; medians of alternating
    rounds.
    """
    torch.manual_seed(0)
    detector = SimpleNet(config).to(device).train()
    optimizers, noise = detector.optimizers(1, 100), generator(0, "noise", device)
    geometry = images.Geometry(config.image_size)
    batches = [files[i : i + config.batch_size] for i in range(0, len(files), config.batch_size)]
    with torch.inference_mode():
        maps = [tuple(m.clone() for m in detector.embed(load(b, geometry, device))) for b in batches]
    cached = Embeddings([[np.concatenate([m[k].cpu().numpy() for m in maps]) for k in range(2)]], single=False)

    def ours():
        for i in range(0, len(files), config.batch_size):
            detector.step(cached.take(range(i, min(i + config.batch_size, len(files))), device), optimizers, noise)

    def authors():
        for batch in batches:
            with torch.no_grad():
                embedded = detector.embed(load(batch, geometry, device))
            detector.step(embedded, optimizers, noise)

    fast, slow = alternate(ours, authors, device)
    return [
        {"what": "training, seconds per pass", "code": "adlib, cached features", "value": fast, "ratio": 1.0},
        {"what": "training, seconds per pass", "code": "the authors' pass", "value": slow, "ratio": slow / fast},
    ]


def load(batch: list[Path], geometry: images.Geometry, device: str) -> torch.Tensor:
    return images.to_float(np.stack([images.resize(images.decode(p), geometry) for p in batch]), device)


def alternate(a, b, device: str) -> tuple[float, float]:
    """Median seconds of two calls that take turns, after one warm-up of each."""
    seconds = ([], [])
    for _ in range(ROUNDS + 1):
        for call, found in ((a, seconds[0]), (b, seconds[1])):
            start = time.perf_counter()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            found.append(time.perf_counter() - start)
    return tuple(float(np.median(s[1:])) for s in seconds)


def prediction(config: Config, files: list[Path], device: str) -> list[dict]:
    """Images per second from the tensor on the device to score and map, batch 1 and 16, network only and end to end."""
    detector = SimpleNet(config).to(device).eval()
    found = timing.speed(detector, files, device)
    rows = [
        {
            "what": f"prediction, {r.what}, batch {r.batch}, images/s",
            "code": "adlib, SimpleNet",
            "value": r.fps,
            "ratio": 1.0,
        }
        for r in found.itertuples()
    ]
    rival = patchcore(config, detector, files, device)
    if rival is None:
        print("anomalib not installed: see benchmarks/requirements.txt", file=sys.stderr)
        return rows
    out = []
    for row in rows:
        out.append(row)
        for batch in (1, 16):
            if f"network, batch {batch}," in row["what"]:
                x = torch.rand(batch, 3, config.image_size, config.image_size, device=device)
                with torch.inference_mode():
                    ms = np.median(timing.measure(lambda x=x: rival(x), device))
                fps = 1e3 * batch / ms
                out.append(
                    {"what": row["what"], "code": "anomalib, PatchCore", "value": fps, "ratio": fps / row["value"]}
                )
    return out


def patchcore(config: Config, detector: SimpleNet, files: list[Path], device: str):
    """anomalib's PatchCore on the same backbone with 10 % of these images' rows as its bank; None without anomalib."""
    try:
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    except ImportError:
        return None
    name = config.backbone.split(".")[0]
    layers = ["layer2", "layer3"] if "resnet" in name else ["blocks.2", "blocks.4"]
    model = PatchcoreModel(layers=layers, backbone=name, pre_trained=False).to(device).eval()
    with torch.inference_mode():
        rows = detector.rows(detector.embed(load(files, images.Geometry(config.image_size), device)))
        keep = torch.randperm(len(rows), generator=generator(0, "bank"))[: max(len(rows) // 10, 50)]
        model.memory_bank = rows[keep.to(device)].clone()
    return model


def decoding(config: Config, files: list[Path]) -> list[dict]:
    """Images per second decoded and resized: the pool that fills the cache against a plain loop."""
    geometry = images.Geometry(config.image_size)

    def pool():
        return list(images._decoded([str(f) for f in files], geometry))

    def loop():
        return [images.resize(images.decode(f), geometry) for f in files]

    fast, slow = alternate(pool, loop, "cpu")
    return [
        {"what": "decoding, images/s", "code": "adlib, thread pool", "value": len(files) / fast, "ratio": 1.0},
        {"what": "decoding, images/s", "code": "one after the other", "value": len(files) / slow, "ratio": fast / slow},
    ]


def write(table: pd.DataFrame, where: str, stem: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    table.to_csv(FOLDER / f"{stem}.csv", index=False, lineterminator="\n")
    text = f"# Speed of SimpleNet\n\n{where}. ratio: value / value of adlib in the same process. "
    text += "Written by `python benchmarks/simplenet.py`.\n\n" + table.to_markdown(index=False, floatfmt=".3g") + "\n"
    (FOLDER / f"{stem}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
