"""Cut-paste: what is pasted comes from the picture, lies inside it, and everything is drawn from the generator."""

import torch

from adlib.synthesis import cut_paste


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, side: int = 64) -> torch.Tensor:
    return 0.2 + 0.8 * torch.rand(count, 3, side, side, generator=generator(5))


def test_the_piece_lies_inside_and_the_rest_stays():
    """The outermost row and column never change; some pixels of nearly every picture do."""
    x = pictures(100)
    changed = (cut_paste(x, generator()) != x).any(1)
    assert not changed[:, 0].any()
    assert not changed[:, :, 0].any()
    assert not changed[:, -1].any()
    assert not changed[:, :, -1].any()
    assert changed.flatten(1).any(1).float().mean() > 0.9


def test_values_are_of_the_picture_or_black():
    """Each picture of one grey level: what is pasted is that level, or black where the turned piece leaves a gap."""
    x = torch.linspace(0.3, 0.9, 50).view(-1, 1, 1, 1).expand(50, 3, 64, 64)
    found = cut_paste(x, generator())
    assert ((found - x).abs().lt(1e-5) | (found == 0)).all()
    assert (found == 0).any()


def test_an_unturned_piece_is_a_copy():
    """Of 11 angles one is 0: there the piece is the picture moved, pixel for pixel."""
    x = pictures(200, 32)
    found = cut_paste(x, generator(1))
    copies = 0
    for before, after in zip(x, found, strict=True):
        inside = (after != before).any(0)
        rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
        if not len(rows) or (after == 0).any():
            continue
        piece = after[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        h, w = piece.shape[1:]
        windows = before.unfold(1, h, 1).unfold(2, w, 1)
        copies += bool((windows - piece[:, None, None]).abs().amax((0, 3, 4)).min() < 1e-5)
    assert copies >= 5


def test_the_generator_decides():
    x = pictures(8)
    assert torch.equal(cut_paste(x, generator(3)), cut_paste(x, generator(3)))
    assert not torch.equal(cut_paste(x, generator(3)), cut_paste(x, generator(4)))
