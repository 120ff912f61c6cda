"""DRAEM's speed: the simulator against the authors' form, its share of a training step, training against arithmetic.

    python benchmarks/draem.py                    # this machine's CPU, small networks
    python benchmarks/draem.py --device cuda      # a GPU, the paper's networks as well

Simulator: the authors (VitjanZ/DRAEM, data_loader.py and perlin.py) treat one sample after the other on the CPU: Perlin
noise in NumPy with tiled gradients, three picture operations, blending, whether the sample stays clean or not. That is
written out below; PIL stands for imgaug and OpenCV, with fewer colour spaces (imgaug itself was not timed). Neither
side decodes files. Both take turns in one process; "workers" runs the authors' form in as many processes as threads.
Goals: >= 3x per image on 2 cores, >= 20x on a GPU; under 5 % of a training step on a GPU.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch.utils.flop_counter import FlopCounterMode

from adlib.common import paths
from adlib.common.seeds import pick_device, reproducible_cuda
from adlib.models.draem import Config, Draem
from adlib.synthesis import Simulator
from adlib.synthesis import operations as texture_operations
from adlib.synthesis.texture_bank import texture_source

FOLDER = paths.PROJECT / "results" / "reference" / "benchmarks"
BATCH = 8
ROUNDS = 7
CPU_NETWORKS = ((16, 8, 64), (16, 8, 128))  # widths and side
GPU_NETWORKS = ((128, 64, 256),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--seconds", type=float, default=3.0, help="of the worker processes")
    args = parser.parse_args()
    device = pick_device(args.device)
    cuda = device.startswith("cuda")
    if cuda:
        reproducible_cuda()  # as in a run: deterministic kernels, no TF32
    load = os.getloadavg()[0]
    rows = [row for side in args.sizes for row in simulation(side, device, args.seconds)]
    for reconstruction, segmentation, side in CPU_NETWORKS + (GPU_NETWORKS if cuda else ()):
        for precision in ("float32", "bfloat16") if cuda else ("float32",):
            config = Config(
                image_size=side,
                reconstruction_width=reconstruction,
                segmentation_width=segmentation,
                batch_size=BATCH,
                precision=precision,
                textures="photographs",
            )
            rows += training(config, device)
    name = torch.cuda.get_device_name() if cuda else "CPU"
    where = f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, load average {load:.1f} before"
    profiles = [profile(side, device) for side in args.sizes]
    write(pd.DataFrame(rows), where, profiles, f"draem_{device.split(':')[0]}")


def material(side: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [8,3,S,S] in 0..1 and a bank uint8 [T,3,S,S], all photographs."""
    bank = texture_source("photographs").bank(side).to(device)
    return bank[10 : 10 + BATCH].float() / 255, bank


def simulation(side: int, device: str, seconds: float) -> list[dict]:
    """Images per second of the simulator and of the authors' form, on one thread and on all of them."""
    threads = torch.get_num_threads()
    images, bank = material(side, device)
    draws, simulator = torch.Generator(device).manual_seed(0), Simulator()
    samples = images.permute(0, 2, 3, 1).mul(255).byte().cpu().numpy()
    textures = bank.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    rng = np.random.default_rng(0)
    ours = lambda: simulator(images, bank, draws)
    theirs = lambda: [authors_sample(sample, textures, rng) for sample in samples]
    found = {}
    if device == "cpu":
        torch.set_num_threads(1)
        found["one thread"] = [BATCH / t for t in alternate(ours, theirs, device=device)]
        torch.set_num_threads(threads)
    fast = BATCH / alternate(ours, device=device, rounds=5 * ROUNDS)[0]
    found[f"{threads} threads"] = fast, workers(samples, textures, threads, seconds)
    rows = []
    for how, (fast, slow) in found.items():
        what = f"simulator at {side}, {how}, images/s"
        rows.append({"what": what, "code": "adlib", "value": fast, "ratio": 1.0})
        rows.append({"what": what, "code": "the authors' form", "value": slow, "ratio": slow / fast})
    return rows


def alternate(*calls, device: str, rounds: int = ROUNDS) -> list[float]:
    """Median seconds of calls that take turns, so that another load of the machine meets all of them."""
    seconds = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, found in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            found.append(time.perf_counter() - start)
    return [float(np.median(found[1:])) for found in seconds]


def workers(samples: np.ndarray, textures: np.ndarray, count: int, seconds: float) -> float:
    """Images per second of the authors' form in `count` processes, as their loader runs it. They use no torch."""
    with ProcessPoolExecutor(count, get_context("fork"), _start, (samples, textures)) as pool:
        pool.submit(_work, 0.1).result()
        return sum(pool.map(_work, [seconds] * count))


def _start(samples: np.ndarray, textures: np.ndarray) -> None:
    global SAMPLES, TEXTURES
    SAMPLES, TEXTURES = samples, textures


def _work(seconds: float) -> float:
    rng, done, start = np.random.default_rng(os.getpid()), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        authors_sample(SAMPLES[done % len(SAMPLES)], TEXTURES, rng)
        done += 1
    return done / (time.perf_counter() - start)


def authors_sample(sample: np.ndarray, textures: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """One training sample as in data_loader.py: uint8 [H,W,3] -> image, damaged image, mask as float32."""
    side = sample.shape[0]
    if rng.random() > 0.7:
        sample = np.asarray(Image.fromarray(sample).rotate(rng.uniform(-90, 90), Image.Resampling.BILINEAR))
    image = sample.astype(np.float32) / 255
    texture = Image.fromarray(textures[rng.integers(len(textures))])
    for number in rng.choice(len(PICTURE_OPERATIONS), 3, replace=False):
        texture = PICTURE_OPERATIONS[number](texture, rng)
    noise = authors_perlin((side, side), tuple(2 ** rng.integers(0, 6, 2)), rng)
    turned = Image.fromarray(noise.astype(np.float32)).rotate(rng.uniform(-90, 90), Image.Resampling.BILINEAR)
    mask = np.where(np.asarray(turned) > 0.5, 1.0, 0.0)[..., None]
    masked = np.asarray(texture).astype(np.float32) * mask / 255
    keep = rng.random() * 0.8
    damaged = (image * (1 - mask) + (1 - keep) * masked + keep * image * mask).astype(np.float32)
    if rng.random() > 0.5:
        return image, image, np.zeros_like(mask, dtype=np.float32)
    return image, damaged, mask.astype(np.float32)


def authors_perlin(shape: tuple[int, int], res: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The algorithm of perlin.py: every cell's gradients repeated over its pixels; sides are multiples of the cells."""
    place = [np.arange(n) * r / n % 1 for n, r in zip(shape, res, strict=True)]
    grid = np.stack(np.meshgrid(*place, indexing="ij"), -1)
    angles = 2 * np.pi * rng.random((res[0] + 1, res[1] + 1))
    gradients = np.stack([np.cos(angles), np.sin(angles)], -1)

    def ramp(a: int, b: int) -> np.ndarray:
        corner = gradients[a : a + res[0], b : b + res[1]]
        tiled = corner.repeat(shape[0] // res[0], 0).repeat(shape[1] // res[1], 1)
        return ((grid - np.array([a, b])) * tiled).sum(-1)

    y, x = np.moveaxis(6 * grid**5 - 15 * grid**4 + 10 * grid**3, -1, 0)
    left = ramp(0, 0) + y * (ramp(1, 0) - ramp(0, 0))
    right = ramp(0, 1) + y * (ramp(1, 1) - ramp(0, 1))
    return np.sqrt(2) * (left + x * (right - left))


def _gamma(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    tables = 255 * (np.arange(256) / 255) ** rng.uniform(0.5, 2, (3, 1))
    return image.point(tables.astype(np.uint8).flatten().tolist())


def _brightness(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    mode, channel = (("YCbCr", 0), ("HSV", 2))[rng.integers(2)]
    factor, summand = rng.uniform(0.8, 1.2), rng.integers(-30, 31)
    bands = list(image.convert(mode).split())
    bands[channel] = bands[channel].point((np.arange(256) * factor + summand).clip(0, 255).astype(np.uint8).tolist())
    return Image.merge(mode, bands).convert("RGB")


def _hue_and_saturation(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    hue, saturation = rng.integers(-50, 51, 2)
    h, s, v = image.convert("HSV").split()
    levels = np.arange(256)
    h = h.point(((levels + hue) % 256).astype(np.uint8).tolist())
    s = s.point((levels + saturation).clip(0, 255).astype(np.uint8).tolist())
    return Image.merge("HSV", (h, s, v)).convert("RGB")


PICTURE_OPERATIONS = (
    _gamma,
    _brightness,
    lambda image, rng: ImageEnhance.Sharpness(image).enhance(rng.uniform(0, 2)),
    _hue_and_saturation,
    lambda image, rng: ImageOps.solarize(image, int(rng.uniform(32, 128))) if rng.random() < 0.5 else image,
    lambda image, rng: ImageOps.posterize(image, int(rng.integers(1, 9))),
    lambda image, rng: ImageOps.invert(image),
    lambda image, rng: ImageOps.autocontrast(image, int(rng.integers(0, 21))),
    lambda image, rng: ImageOps.equalize(image),
    lambda image, rng: image.rotate(rng.uniform(-45, 45), Image.Resampling.BILINEAR),
)


def training(config: Config, device: str) -> list[dict]:
    """Images per second of a whole step, the simulator's share of it, and the arithmetic against a matrix product."""
    torch.manual_seed(0)
    detector = Draem(config).to(device).train()
    detector.equip(texture_source("photographs"), device)
    optimizers, draws = detector.optimizers(1, 100), torch.Generator(device).manual_seed(0)
    images, _ = material(config.image_size, device)
    half = torch.autocast("cuda", torch.bfloat16, enabled=config.precision == "bfloat16" and device != "cpu")

    def step():
        with half:
            detector.step(images, optimizers, draws)

    with FlopCounterMode(display=False) as counter:
        step()
    flop = counter.get_total_flops() / BATCH
    simulate = lambda: detector.simulator(images, detector.bank, draws)
    whole, alone = alternate(step, simulate, device=device)
    peak = matrix_flops(device, torch.bfloat16 if config.precision == "bfloat16" else torch.float32)
    widths = f"{config.reconstruction_width}/{config.segmentation_width} at {config.image_size}, {config.precision}"
    limit = peak / flop
    speed = BATCH / whole
    return [
        {"what": f"training {widths}, images/s", "code": "adlib", "value": speed, "ratio": 1.0},
        {
            "what": f"training {widths}, images/s",
            "code": limit_name(flop, peak),
            "value": limit,
            "ratio": limit / speed,
        },
        {
            "what": f"simulator's share of a step {widths}, %",
            "code": "adlib",
            "value": 100 * alone / whole,
            "ratio": 1.0,
        },
    ]


def limit_name(flop: float, peak: float) -> str:
    return f"{flop / 1e9:.3g} GFLOP per image at a matrix product's {peak / 1e12:.3g} TFLOP/s"


def matrix_flops(device: str, dtype: torch.dtype) -> float:
    """FLOP per second that a large square matrix product reaches here: what arithmetic could reach at best."""
    side = 1024 if device == "cpu" else 8192
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / alternate(lambda: a @ b, device=device)[0]


def profile(side: int, device: str) -> str:
    """Where the time goes: milliseconds per texture of each operation, and torch's own table of a batch."""
    images, bank = material(side, device)
    uniform = torch.rand(BATCH, texture_operations.DRAWS, generator=torch.Generator().manual_seed(0))
    lines = []
    for name, operation in texture_operations.OPERATIONS.items():
        call = lambda operation=operation: operation.apply(bank[:BATCH], *operation.parameters(uniform))
        lines.append({"operation": name, "ms per texture": 1e3 * alternate(call, device=device)[0] / BATCH})
    simulator, draws = Simulator(), torch.Generator(device).manual_seed(0)
    simulator(images, bank, draws)
    with torch.profiler.profile() as profiler:
        for _ in range(20):
            simulator(images, bank, draws)
    key = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    events = sorted(profiler.key_averages(), key=lambda e: -getattr(e, key))
    total = sum(getattr(e, key) for e in events)
    top = [
        {"torch operator": e.key, "share %": 100 * getattr(e, key) / total, "calls per batch": e.count / 20}
        for e in events[:12]
    ]
    tables = [pd.DataFrame(t).to_markdown(index=False, floatfmt=".3g") for t in (lines, top)]
    return f"## Profile at {side}\n\n" + "\n\n".join(tables) + "\n"


def write(table: pd.DataFrame, where: str, profiles: list[str], stem: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    table.to_csv(FOLDER / f"{stem}.csv", index=False, lineterminator="\n")
    text = f"# Speed of DRAEM\n\nBatch {BATCH}, {where}. ratio: value / value of adlib in the same process. "
    text += "Written by `python benchmarks/draem.py`.\n\n" + table.to_markdown(index=False, floatfmt=".3g") + "\n\n"
    text += "\n".join(profiles)
    (FOLDER / f"{stem}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
