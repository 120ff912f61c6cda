"""Speed of the flows of paper 05: ValidFlow beside CS-Flow, beside anomalib's CS-Flow, and against this machine's
arithmetic; cached features against features computed in each pass; the size of the cache.

    python benchmarks/flows.py                    # this machine's CPU, narrow networks
    python benchmarks/flows.py --device cuda --side 768 --hidden-validflow 896 --hidden-csflow 1024   # the paper's

Scoring: batches of 16 random features of 304 channels, in eval mode, all systems in turn in one process. Limit: images
per second that the machine would score if the flow's multiplications ran as fast as one large matrix product does; the
share of it that is reached is what can be compared between machines. Published (RTX 3080 Ti): CS-Flow 100 images per
second, ValidFlow 122, ratio 1.22. Training: a pass over cached features against one that runs the backbone again.
"""

import argparse
import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode
from turns import FOLDER, alternate, write

from adlib.common.seeds import generator, pick_device
from adlib.models.csflow import CSFlow
from adlib.models.multiscale import Pyramid
from adlib.models.validflow import ValidFlow

BATCH, CHANNELS, ROUNDS = 16, 304, 5
PUBLISHED = {"CS-Flow": 100.0, "ValidFlow": 122.0}  # images per second, [P] Table 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--hidden-validflow", type=int, default=64)
    parser.add_argument("--hidden-csflow", type=int, default=64)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder that receives flows_<device>.md and .csv")
    args = parser.parse_args()
    device = pick_device(args.device)
    rows = scoring(args, device) + training(args, device)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    conditions = (
        f"{args.side} px, hidden widths {args.hidden_validflow} (ValidFlow, n = 3) and {args.hidden_csflow} (CS-Flow, "
        f"6 couplings); {name}, {torch.get_num_threads()} threads, torch {torch.__version__}, load average "
        f"{os.getloadavg()[0]:.1f}. ratio: against CS-Flow, or against the cache. Published ratio of the speeds: "
        f"{PUBLISHED['ValidFlow'] / PUBLISHED['CS-Flow']:.2f}. Written by `python benchmarks/flows.py`."
    )
    write(pd.DataFrame(rows), "Speed of ValidFlow and CS-Flow", conditions, args.out, f"flows_{device.split(':')[0]}")


def systems(args, channels: int = CHANNELS) -> dict[str, torch.nn.Module]:
    """Both flows, gammas not zero, as after training."""
    torch.manual_seed(0)
    stand_in = SimpleNamespace(channels=(channels,) * 3)
    kinds = {"CS-Flow": (CSFlow, {"blocks": 6, "hidden": args.hidden_csflow})}
    kinds["ValidFlow"] = (ValidFlow, {"blocks": 3, "hidden": args.hidden_validflow})
    built = {n: kind(kind.Config(image_size=args.side, **c), backbone=stand_in) for n, (kind, c) in kinds.items()}
    for detector in built.values():
        for parameter_name, parameter in detector.named_parameters():
            if ".gamma." in parameter_name:
                torch.nn.init.constant_(parameter, 0.1)
    return built


def scoring(args, device: str) -> list[dict]:
    """Images per second of each flow in turn, its multiplications, and the share of the machine's limit."""
    built = {name: detector.to(device).eval() for name, detector in systems(args).items()}
    features = tuple(torch.randn(BATCH, CHANNELS, args.side // s, args.side // s, device=device) for s in (32, 64, 128))
    calls = {name: (lambda d=detector: d.score(features)) for name, detector in built.items()}
    rival = anomalib_flow(args)
    if rival is not None:
        rival = rival.to(device).eval()
        calls["CS-Flow, anomalib"] = lambda: rival(features)
    peak = 1e-9 / seconds_per_product(device)
    rows = []
    with torch.inference_mode():
        seconds = dict(zip(calls, alternate(*calls.values(), device=device, rounds=ROUNDS), strict=True))
        for name, taken in seconds.items():
            with FlopCounterMode(display=False) as counter:
                calls[name]()
            gmac = counter.get_total_flops() / 2e9 / BATCH
            row = {"what": "score", "system": name, "unit": "images / s", "value": BATCH / taken}
            row |= {"ratio": seconds["CS-Flow"] / taken, "GMac / image": gmac}
            row["share of limit"] = gmac * BATCH / taken / peak
            rows.append(row)
    return rows


def seconds_per_product(device: str, side: int = 2048) -> float:
    """Seconds of one multiplication and addition in a square matrix product, the machine's best case."""
    a = torch.randn(side, side, device=device)
    (seconds,) = alternate(lambda: a @ a, device=device, rounds=ROUNDS)
    return seconds / side**3


def anomalib_flow(args) -> torch.nn.Module | None:
    """anomalib's flow of the same size without its backbone, where the package is installed."""
    try:
        from anomalib.models.image.csflow.torch_model import CrossScaleFlow
    except ImportError:
        print("anomalib is not installed: its CS-Flow is left out (see benchmarks/requirements.txt)")
        return None
    return CrossScaleFlow(
        input_dims=(3, args.side, args.side),
        n_coupling_blocks=6,
        clamp=3.0,
        cross_conv_hidden_channels=args.hidden_csflow,
    )


def training(args, device: str) -> list[dict]:
    """A step of 16 pictures: features from the cache, against the backbone in each pass; bytes of a picture."""
    pyramid = Pyramid(args.backbone, "blocks.5").to(device)
    detector = systems(args, pyramid.channels[0])["ValidFlow"].to(device).train()
    optimizers, noise = detector.optimizers(1, 1), generator(0, "noise", device)
    pictures = torch.rand(BATCH, 3, args.side, args.side, device=device)
    with torch.no_grad():
        cached = tuple(each.half() for each in pyramid(pictures))

    def from_cache():
        detector.step(tuple(each.float() for each in cached), optimizers, noise)

    def anew():
        with torch.no_grad():
            maps = pyramid(pictures)
        detector.step(maps, optimizers, noise)

    fast, slow = alternate(from_cache, anew, device=device, rounds=ROUNDS)
    size, common = sum(each[0].numel() for each in cached) * 2, {"what": "train", "unit": "images / s"}
    return [
        common | {"system": "ValidFlow, cached features", "value": BATCH / fast, "ratio": 1},
        common | {"system": "ValidFlow, features each pass", "value": BATCH / slow, "ratio": fast / slow},
        {"what": "cache", "system": args.backbone, "unit": "kB / picture", "value": size / 1e3},
    ]


if __name__ == "__main__":
    main()
