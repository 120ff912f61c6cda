"""Speed of MMAERec (paper 02): the network, each part of the score, and how much of the time the score costs. The paper
prints 0.115 s a picture on an RTX 4070.

    python benchmarks/mmaerec.py                                     # this machine's CPU, ResNet-18, narrow layers
    python benchmarks/mmaerec.py --device cuda --backbone wide_resnet50_2.tv_in1k --width 128          # the paper's

All parts in turns in one process on the same pictures, with random weights, which take the same time.
"""

import argparse
import os
from pathlib import Path

import pandas as pd
import torch
from turns import FOLDER, alternate, write

from adlib import losses
from adlib.common.seeds import pick_device
from adlib.models import mmaerec

ROUNDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backbone", default="resnet18.tv_in1k")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder that receives mmaerec_<device>.md and .csv")
    args = parser.parse_args()
    device = pick_device(args.device)
    settings = {"backbone": args.backbone, "width": args.width, "image_size": args.side, "pretrained": False}
    net = mmaerec.MMAERec(mmaerec.Config.from_dict(settings)).to(device).eval()
    images = torch.rand(args.batch, 3, args.side, args.side, device=device)
    with torch.inference_mode():
        calls = parts(net, images)
        seconds = dict(zip(calls, alternate(*calls.values(), device=device, rounds=ROUNDS), strict=True))
    network = seconds["network"]
    rows = [
        {"part": name, "ms / image": 1000 * s / args.batch, "share of the network's time": s / network}
        for name, s in seconds.items()
    ]
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    conditions = (
        f"{args.backbone} without pretrained weights, width {args.width}, {args.side} px, batches of {args.batch}, "
        f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}. score: "
        "structure, colour and both filters. end: the network and the score. Written by `python benchmarks/mmaerec.py`."
    )
    write(pd.DataFrame(rows), "Milliseconds of MMAERec", conditions, args.out, f"mmaerec_{device.split(':')[0]}")


def parts(net: mmaerec.MMAERec, images: torch.Tensor) -> dict:
    """{part: a call that computes it alone}; the score's parts on the pictures and their reconstruction."""
    c, (structure, colour) = net.config, net.sides
    rebuilt = net(images)[0].clamp(0, 1)
    maps = torch.rand(len(images), 1, *images.shape[-2:], device=images.device)
    both = torch.cat((images, rebuilt))
    return {
        "network": lambda: net(images),
        "of it: edges": lambda: mmaerec.edges(images),
        "of it: frozen network": lambda: net.unet.trunk(images),
        "of it: frozen network and memories": lambda: net.unet.remembered(images),
        "score": lambda: score(net, images, rebuilt),
        "of it: gradient similarity": lambda: losses.gradient_similarity(images, rebuilt, c.msgms_scales),
        "of it: CIELAB": lambda: losses.cielab(both),
        "of it: filters": lambda: (mmaerec.mean_filter(maps, structure), mmaerec.mean_filter(maps, colour)),
        "end": lambda: net.score(images),
    }


def score(net: mmaerec.MMAERec, images: torch.Tensor, rebuilt: torch.Tensor) -> torch.Tensor:
    """Eq. (14) on pictures that are rebuilt already."""
    c, (structure, colour) = net.config, net.sides
    found = mmaerec.structure_difference(images, rebuilt, c.msgms_scales, structure)
    return found + c.colour_weight * mmaerec.colour_difference(images, rebuilt, colour, c.lab)


if __name__ == "__main__":
    main()
