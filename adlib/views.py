"""Which network inputs ("views") the pictures of a table become, and one score and map per picture from its views'.

Squash and short_crop: one view, all of which counts. Pad: one view; the mirrored padding counts nowhere. Tiles: several
overlapping views; the picture's score is the highest of theirs, its map their mean, weighted by a window that falls
towards the borders of a view, where a network sees only half of what lies around.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from adlib import images
from adlib.images import Geometry


@dataclass(frozen=True)
class Views:
    """The views of N pictures, in order of the pictures; those of one lie side by side, in raster order."""

    geometry: Geometry
    starts: np.ndarray  # [N+1]: the views of picture i are starts[i] to starts[i + 1]
    sizes: np.ndarray | None  # [N,2], original height and width; None where they play no part: squash, short_crop

    @classmethod
    def of(cls, table: pd.DataFrame, geometry: Geometry) -> "Views":
        """Of all rows of a sample table; sizes come from the files' headers. UserError: unreadable image."""
        if geometry.resize_mode in ("squash", "short_crop"):
            return cls(geometry, np.arange(len(table) + 1), None)
        return cls.of_sizes(images.sizes(list(table.path)), geometry)

    @classmethod
    def of_sizes(cls, sizes, geometry: Geometry) -> "Views":
        """Of pictures of these original sizes [N,2] (height, width)."""
        sizes = np.asarray(sizes).reshape(-1, 2)
        counts = [len(geometry.windows(*size)) for size in sizes.tolist()]
        plain = geometry.resize_mode in ("squash", "short_crop")
        return cls(geometry, np.concatenate([[0], np.cumsum(counts, dtype=int)]), None if plain else sizes)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.starts) - 1

    @property
    def plain(self) -> bool:
        """Whether each picture is one view, and every pixel of it counts."""
        return self.sizes is None

    def rows(self, pictures) -> np.ndarray:
        """Rows of the views of the chosen pictures, one picture after the other."""
        chosen = np.asarray(pictures)
        if self.plain:
            return chosen
        return np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in chosen] or [chosen]).astype(int)

    def subset(self, pictures) -> "Views":
        """The chosen pictures' views alone, counted anew; they belong to `rows(pictures)`."""
        chosen = np.asarray(pictures)
        counts = np.diff(self.starts)[chosen]
        starts = np.concatenate([[0], np.cumsum(counts, dtype=int)])
        return Views(self.geometry, starts, None if self.plain else self.sizes[chosen])

    def longest(self) -> int:
        """Longest side of the resized pictures, pixels; of pad it is S."""
        return max(max(self.geometry.resized(*size)) for size in self.sizes.tolist())

    def valid(self, side: int) -> np.ndarray | None:
        """Bool [N,side,side]: where the grid of `geometry.at(side)` holds a picture, not padding; None: everywhere."""
        if self.plain:
            return None
        grids, geometry = np.zeros((len(self), side, side), bool), self.geometry.at(side)
        for grid, size in zip(grids, self.sizes.tolist(), strict=True):
            grid[geometry.inside(*size)] = True
        return grids

    def cells(self, first: int, shape: tuple[int, int, int]) -> np.ndarray:
        """Bool [n,h,w]: which cells of a network's grid count in n padded pictures, from the number `first` on.

        Those whose middle lies in the picture; of a picture thinner than that, the row of cells through its middle.
        """
        grids = np.zeros(shape, bool)
        for grid, size in zip(grids, self.sizes[first : first + len(grids)].tolist(), strict=True):
            parts = self.geometry.inside(*size)
            grid[tuple(_middles(p, self.geometry.image_size, n) for p, n in zip(parts, shape[1:], strict=True))] = True
        return grids

    def levels(self, pictures: np.ndarray, chosen) -> np.ndarray:
        """Mean grey level [n] of the chosen padded or tiled pictures, from the views of all uint8 [M,3,S,S].

        Each pixel of the resized picture counts once, however many tiles it is in.
        """
        means = np.empty(len(chosen))
        for k, i in enumerate(chosen):
            views, size = pictures[self.starts[i] : self.starts[i + 1]], self.sizes[i].tolist()
            whole = views[0][(..., *self.geometry.inside(*size))]
            if len(views) > 1:
                whole = np.empty((3, *self.geometry.resized(*size)), np.uint8)
                for view, (top, left) in zip(views, self.geometry.windows(*size), strict=True):
                    whole[:, top : top + view.shape[1], left : left + view.shape[2]] = view
            means[k] = whole.mean()
        return means

    def on_grid(self, picture: int, map: Tensor, side: int, antialias: bool = False) -> Tensor:
        """A picture's map [h,w] on the padded grid [side,side], bilinear; NaN in the padding."""
        rows, columns = self.geometry.at(side).inside(*self.sizes[picture].tolist())
        size = (rows.stop - rows.start, columns.stop - columns.start)
        if map.shape != size:
            map = F.interpolate(map[None, None], size=size, mode="bilinear", antialias=antialias)[0, 0]
        grid = map.new_full((side, side), float("nan"))
        grid[rows, columns] = map
        return grid


def _middles(part: slice, side: int, count: int) -> slice:
    """Of `count` cells along `side` pixels: those whose middle lies in the part; at least the one at its middle."""
    low, high = (math.ceil(edge * count / side - 0.5) for edge in (part.start, part.stop))
    middle = int((part.start + part.stop) / 2 * count / side)
    return slice(low, high) if high > low else slice(middle, middle + 1)


def window(side: int) -> Tensor:
    """Weights [side,side] of a view's pixels in a stitched map: a pyramid, highest in the middle and nowhere zero."""
    ramp = torch.minimum(torch.arange(1, side + 1), torch.arange(side, 0, -1)).float()
    return ramp[:, None] * ramp / ramp.max() ** 2


class Stitcher:
    """One score and one map per picture from those of its views, handed over in order, a batch at a time.

    No more than one unfinished picture is held.
    """

    def __init__(self, views: Views):
        self.views, self.picture, self.view = views, 0, 0
        self.score: Tensor | None = None
        self.sum: Tensor | None = None  # [h,w] of the resized picture, weighted
        self.weight: Tensor | None = None  # [h,w]
        self.places: list[tuple[int, int]] = []  # (top, left) of each view
        self.window = window(views.geometry.image_size)

    def add(self, scores: Tensor, maps: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
        """Scores [B] and maps [B,S,S] of the next views -> (score, map [h,w]) of each picture that they complete."""
        finished = []
        for k in range(len(scores)):
            first, end = self.views.starts[self.picture : self.picture + 2]
            self.score = scores[k] if self.view == first else torch.maximum(self.score, scores[k])
            whole = None if maps is None else self._add_map(self.view - first, end - first, maps[k])
            self.view += 1
            if self.view == end:
                finished.append((self.score, whole))
                self.picture += 1
        return finished

    def _add_map(self, k: int, count: int, map: Tensor) -> Tensor | None:
        """The picture's map after its last view."""
        if self.views.plain:
            return map
        geometry, size = self.views.geometry, self.views.sizes[self.picture].tolist()
        if count == 1:
            return map[geometry.inside(*size)]
        if k == 0:
            self.sum, self.weight = (map.new_zeros(geometry.resized(*size)) for _ in range(2))
            self.places, self.window = geometry.windows(*size), self.window.to(map.device)
        top, left = self.places[k]
        place = slice(top, top + len(map)), slice(left, left + len(map))
        self.sum[place] += self.window * map
        self.weight[place] += self.window
        return self.sum / self.weight if k == count - 1 else None
