"""Speed of a detector after specs/common, section 5: warmed up, synchronised, medians; network only and end to end.

Other people's frames per second come from other machines and other code; only numbers of one call of `speed` compare.
"""

import os
import platform
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from adlib import images
from adlib.common.seeds import pick_device
from adlib.evaluation import stitched
from adlib.inference import BATCH
from adlib.views import Stitcher, Views


def measure(call: Callable[[], object], device: str = "cpu", seconds: float = 3.0, calls: int = 50) -> np.ndarray:
    """Milliseconds of single calls: >= 10 calls and >= 1/3 of `seconds` to warm up, then `calls` calls or `seconds`."""
    cuda = torch.device(device).type == "cuda"
    times, start = [], time.perf_counter()
    while (len(times) < 10 and time.perf_counter() - start < 10 * seconds) or time.perf_counter() - start < seconds / 3:
        call()
        times.append(0)
    times, start = [], time.perf_counter()
    while (len(times) < calls and time.perf_counter() - start < seconds) or len(times) < 5:
        if cuda:
            torch.cuda.synchronize(device)
        before = time.perf_counter()
        call()
        if cuda:
            torch.cuda.synchronize(device)
        times.append(1e3 * (time.perf_counter() - before))
    return np.array(times)


def speed(
    detector, files: list, device: str = "auto", batches: tuple[int, ...] = (1, 16), seconds: float = 3.0
) -> pd.DataFrame:
    """Rows "network" (tensor on the device -> score and map) and "end_to_end" (file -> score and map in host memory).

    files: real pictures, for end_to_end and for how many inputs a picture has (tiles). Columns: what, batch, median_ms,
    p10_ms, p90_ms (per call), fps (batch / median), calls (measured); attrs: device, threads, torch version, side, load
    average before the start.
    """
    device = pick_device(device)
    detector = detector.to(device).eval()
    shape, side = detector.config.geometry, detector.config.image_size
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    rows = []
    with torch.inference_mode():
        for batch in batches:
            chosen, at_once = [files[i % len(files)] for i in range(batch)], max(batch, BATCH)
            inputs = sum(len(shape.windows(*size)) for size in images.sizes(chosen).tolist())  # of tiles several each
            random = torch.rand(inputs, 3, side, side, device=device).split(at_once)

            def network(parts=random):
                return [detector.score(detector.embed(x)) for x in parts]

            def end_to_end(paths=chosen, at_once=at_once):
                pictures = [images.decode(p) for p in paths]
                stitcher = Stitcher(Views.of_sizes([p.shape[:2] for p in pictures], shape))
                views = np.concatenate([images.cut(p, shape) for p in pictures])
                for first in range(0, len(views), at_once):
                    x = images.to_float(views[first : first + at_once], device)
                    for score, whole in stitched(detector, stitcher, detector.score(detector.embed(x))):
                        _ = score.item(), None if whole is None else whole.cpu()

            for what, call in (("network", network), ("end_to_end", end_to_end)):
                ms = measure(call, device, seconds)
                low, median, high = np.percentile(ms, [10, 50, 90])
                facts = {"median_ms": median, "p10_ms": low, "p90_ms": high, "fps": 1e3 * batch / median}
                rows.append({"what": what, "batch": batch} | facts | {"calls": len(ms)})
    table = pd.DataFrame(rows)
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else platform.machine()
    table.attrs = {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "side": side,
        "load": load,
    }
    return table
