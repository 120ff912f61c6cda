"""Masks and maps that several tests of metrics use, and the names of the golden cases."""

import numpy as np

GOLDEN_CASES = (
    "random ties few_levels saturated constant tiny offset skewed negative64 uint8 perfect inverted full_mask "
    "all_anomalous mini"
).split()
VALUES = ("pixel_auroc", "pixel_ap", "aupro@0.3", "aupro@1", "pixel_f1_max (oracle)")


def simulated(seed=0, n=6, side=20, levels=None):
    """Masks with a corner contact, a ring, empty images; maps that see them a little; few levels: many ties."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, side, side), np.uint8)
    masks[0, 2:6, 2:6], masks[0, 6:9, 6:9] = 1, 1
    masks[1, 10:17, 10:17], masks[1, 12:15, 12:15] = 1, 0
    masks[2, 3, 3], masks[2, 15, 4:9], masks[3, :, 0] = 1, 1, 1
    maps = (rng.standard_normal(masks.shape) + masks).astype(np.float32)
    return masks, maps if levels is None else np.round(maps * levels / 8).astype(np.float32)
