"""Speed of the improved masked autoencoder (paper 01): a training step whose encoder sees visible patches only, against
one in which it sees all patches in each of the n views, and against this machine's arithmetic; memory for the backward.

    python benchmarks/mae.py                                                      # this machine's CPU, narrow networks
    python benchmarks/mae.py --device cuda --side 224 --width 768 --decoder-width 512 --batch 64         # the paper's

All ratios, in turns in one process. Limit: images per second that the machine would train if all multiplications of the
step (forward, and twice as many backward) ran as fast as one large matrix product does.
"""

import argparse
import os
from pathlib import Path

import pandas as pd
import torch
from flows import seconds_per_product
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from turns import FOLDER, alternate, write

from adlib.common.seeds import generator, pick_device
from adlib.models.improved_mae import Config, ImprovedMAE, partition, sizes

RATIOS, ROUNDS = (0.5, 0.75, 0.8, 0.9), 5


class FullTokens(ImprovedMAE):
    """The same network, whose encoder gets all patches in every view: what masking by mask tokens would cost."""

    def predictions(self, images, order):
        count, n, patches = images.shape[0], self.config.n, self.config.patches
        every = self.net.tokens((images - self.mean) / self.std).repeat_interleave(n, 0)
        places = torch.arange(patches, device=images.device).expand(count * n, -1)
        views = self.net.decode(self.net.encode(every), places).unflatten(0, (count, n))
        hidden, start = torch.ones(count, n, patches, device=images.device), 0
        for i, size in enumerate(sizes(patches, n)):
            hidden[:, i].scatter_(1, order[:, start : start + size], 0)
            start += size
        return views, hidden


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--decoder-width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder that receives mae_<device>.md and .csv")
    args = parser.parse_args()
    device = pick_device(args.device)
    peak = 1 / seconds_per_product(device)  # multiplications per second
    rows = [row for ratio in RATIOS for row in at_ratio(args, device, ratio, peak)]
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    conditions = (
        f"E2D4 at {args.side} px, widths {args.width} and {args.decoder_width}, batches of {args.batch}, loss SSIM and "
        f"l1; {name}, {torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}. "
        "ratio: speed against the encoder with all patches. GMac: forward, matrix products and attention. memory: "
        "tensors kept for the backward pass. Written by `python benchmarks/mae.py`."
    )
    write(
        pd.DataFrame(rows),
        "A training step of the masked autoencoder",
        conditions,
        args.out,
        f"mae_{device.split(':')[0]}",
    )


def at_ratio(args, device: str, ratio: float, peak: float) -> list[dict]:
    """Both encoders at one hidden share."""
    heads = {"heads": max(1, args.width // 32), "decoder_heads": max(1, args.decoder_width // 32)}
    config = Config(
        image_size=args.side,
        width=args.width,
        decoder_width=args.decoder_width,
        batch_size=args.batch,
        mask_ratio=ratio,
        lpips="off",
        augment="none",
        **heads,
    )
    images, noise = torch.rand(args.batch, 3, args.side, args.side, device=device), generator(0, "noise", device)
    built = {"all patches": FullTokens, "visible patches": ImprovedMAE}
    nets = {name: kind(config).to(device).train() for name, kind in built.items()}
    optimizers = {name: net.optimizers(1, 100) for name, net in nets.items()}
    calls = [lambda name=name: nets[name].step(images, optimizers[name], noise) for name in nets]
    seconds = dict(zip(nets, alternate(*calls, device=device, rounds=ROUNDS), strict=True))
    rows = []
    for name, net in nets.items():
        gmac = macs(net, images) / args.batch / 1e9
        row = {"r": ratio, "n": config.n, "encoder sees": name, "images / s": args.batch / seconds[name]}
        row |= {"ratio": seconds["all patches"] / seconds[name], "GMac / image": gmac}
        row["share of limit"] = 3 * gmac * 1e9 * args.batch / seconds[name] / peak
        rows.append(row | {"memory [MB / image]": kept(net, images) / args.batch / 1e6})
    return rows


def macs(net: ImprovedMAE, images: torch.Tensor) -> float:
    """Multiplications of a forward pass; fused attention would not be counted."""
    order = partition(len(images), net.config.patches, generator(0, "order", images.device))
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        net(images, order)
    return counter.get_total_flops() / 2


def kept(net: ImprovedMAE, images: torch.Tensor) -> int:
    """Bytes of the tensors that a forward pass keeps for the backward one, each storage once, without the weights."""
    weights, seen = {p.untyped_storage().data_ptr() for p in net.parameters()}, {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net.loss(images, generator(0, "noise", images.device))["total"].item()
    return sum(seen.values())


if __name__ == "__main__":
    main()
