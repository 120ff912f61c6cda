"""What metrics accept: arrays, sequences and tensors of finite scores and of truth in {0, 1}; else one sentence."""

import numpy as np

from adlib.common.errors import UserError


def as_array(values) -> np.ndarray:
    """NumPy view of an array, a sequence or a tensor on any device; half precision becomes float32."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() and values.itemsize == 2 else values).numpy()
    try:
        values = np.asarray(values)
    except ValueError as error:
        raise UserError("scores, maps and masks must be rectangular arrays; hand images of other sizes to "
                        "PixelMetrics.update one size at a time") from error  # fmt: skip
    if values.dtype.kind not in "fiub":
        raise UserError(f"labels, masks, scores and maps must be numbers, got {values.dtype}")
    return np.atleast_1d(values.astype(np.float32) if values.dtype == np.float16 else values)


def check_scores(scores, name: str, valid: np.ndarray | None = None) -> np.ndarray:
    """The array, or UserError naming the first image with a NaN or infinite score that is valid (default: all are)."""
    scores, where = as_array(scores), True if valid is None else valid
    if scores.dtype.kind == "f":
        ends = [scores.min(where=where, initial=0), scores.max(where=where, initial=0)]  # of whole arrays: no copies
        if not np.isfinite(ends).all():
            place = np.unravel_index(np.argmin(np.isfinite(scores) | np.logical_not(where)), scores.shape)
            raise UserError(f"{name}[{place[0]}] contains {scores[place]}; every score must be finite")
    return scores.view(np.uint8) if scores.dtype == bool else scores


def check_binary(values, name: str) -> np.ndarray:
    """Boolean array, or UserError naming the first entry that is neither 0 nor 1."""
    values = as_array(values)
    if values.dtype == bool:
        return values
    result = values.astype(bool)
    wrong = values != result
    if wrong.any():
        place = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise UserError(f"{name}[{place[0]}] holds {values[place]}; only 0 (normal) and 1 (anomalous) are valid, "
                        "binarise grey masks first")  # fmt: skip
    return result


def check_pair(truth, scores, names: tuple[str, str], valid: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Boolean truth and scores of one shape, finite where they are valid (default: everywhere), or UserError."""
    truth, scores = check_binary(truth, names[0]), check_scores(scores, names[1], valid)
    if truth.shape != scores.shape:
        raise UserError(
            f"{names[0]} have shape {list(truth.shape)} but {names[1]} {list(scores.shape)}; they must agree"
        )
    if not truth.size:
        raise UserError(f"{names[0]} and {names[1]} are empty; at least one normal and one anomalous entry are needed")
    return truth, scores


def check_images(masks, maps, valid=None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Masks and maps as [N,H,W], and where they count; one [H,W] image and a channel axis of length 1 are accepted.

    valid (0/1), of the masks' shape: pixels outside count nowhere and may hold any score, NaN too; None: all count.
    """
    masks, maps, valid = check_valid(masks, maps, valid, ("masks", "maps"))
    if masks.ndim == 2:
        return masks[None], maps[None], None if valid is None else valid[None]
    if masks.ndim == 4 and masks.shape[1] == 1:
        return masks[:, 0], maps[:, 0], None if valid is None else valid[:, 0]
    if masks.ndim != 3:
        raise UserError(f"masks and maps must be [N,H,W], got {list(masks.shape)}")
    return masks, maps, valid


def check_valid(truth, scores, valid, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """What `check_pair` gives, and boolean valid of that shape (None: all); scores outside of it may be anything."""
    if valid is None:
        return *check_pair(truth, scores, names), None
    valid, scores = check_binary(valid, "valid"), as_array(scores)
    if valid.shape != scores.shape:
        raise UserError(f"valid has shape {list(valid.shape)} but {names[1]} {list(scores.shape)}; they must agree")
    return *check_pair(truth, scores, names, valid), valid


def check_limit(limit: float) -> float:
    """The integration limit of AUPRO, or UserError outside (0, 1]."""
    if not 0 < limit <= 1:
        raise UserError(f"fpr_limit {limit} is outside (0, 1]; the usual value is 0.3")
    return float(limit)
