"""Improved masked autoencoder: sets, merge, network, loss and schedule against MAE's code and by hand; exact sizes."""

import math

import numpy as np
import pytest
import torch

from adlib import losses
from adlib.common.errors import UserError
from adlib.models import improved_mae
from adlib.models.improved_mae import Autoencoder, Config, ImprovedMAE, merge, partition, sizes

RATIOS = {0.5: 2, 0.75: 4, 0.8: 5, 0.9: 10}  # r -> n, the paper's Table 2
SMALL = {"image_size": 32, "patch": 8, "width": 16, "heads": 2, "decoder_width": 8, "decoder_heads": 2, "lpips": "off"}


def make(**changes) -> ImprovedMAE:
    torch.manual_seed(0)
    return ImprovedMAE(Config(**SMALL | changes)).eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=generator(1))


# Equation (2)


@pytest.mark.parametrize(("ratio", "n"), RATIOS.items())
def test_the_sets_hold_every_patch_once_for_every_ratio(ratio, n):
    """Eq. (2) on the paper's 196 patches: sum of V_i = 1, so each patch is hidden n - 1 times; also where 196 / n is
    not whole. Sizes differ by one at most.
    """
    config = Config(mask_ratio=ratio, lpips="off")
    assert (config.n, config.patches) == (n, 196)
    order, ends = partition(3, 196, generator()), np.cumsum(sizes(196, n))
    visible = torch.stack([torch.zeros(3, 196).scatter(1, s, 1) for s in order.tensor_split(ends[:-1].tolist(), 1)], 1)
    assert (visible.sum(1) == 1).all()
    assert ((1 - visible).sum(1) == n - 1).all()
    assert len({int(v) for v in visible.sum(2).flatten()}) == (1 if 196 % n == 0 else 2)


@pytest.mark.parametrize("n", [2, 4, 5, 7])
def test_the_views_of_the_network_hide_what_eq_2_says(n):
    """16 patches: of n = 5 and 7 views, some see one patch more."""
    net = make(views=n)
    _, hidden = net.predictions(pictures(), partition(2, 16, generator()))
    assert hidden.shape == (2, n, 16)
    assert (hidden.sum(1) == n - 1).all()
    assert sorted((16 - hidden[0].sum(1)).tolist(), reverse=True) == sizes(16, n)


def test_sizes_of_the_sets(golden):
    """196 in 5: 40, 39, 39, 39, 39; in 10: six of 20, four of 19 (golden: floor, and how many have one more)."""
    assert sizes(196, 5) == [40, 39, 39, 39, 39]
    g = golden("mae")
    for patches, n, low, more in zip(*(g[f"sizes_{k}"].tolist() for k in ("L", "n", "min", "n_of_max")), strict=True):
        assert (min(sizes(patches, n)), sum(s > low for s in sizes(patches, n))) == (low, more)


def test_every_picture_and_step_has_sets_of_its_own():
    g = generator()
    first, second = partition(2, 196, g), partition(2, 196, g)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


# Equation (3)


def test_merge_by_hand():
    """Two views, two patches: what each did not see is taken, divided by n - 1 = 1."""
    views = torch.tensor([[[[1.0], [2.0]], [[3.0], [4.0]]]])  # [1, 2, 2, 1]
    hidden = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    assert merge(views, hidden).tolist() == [[[3.0], [2.0]]]


@pytest.mark.parametrize("n", [2, 4, 5, 10])
def test_merge_equals_the_scalar_loop(golden, n):
    g = golden("mae")
    views, hidden = (torch.from_numpy(g[f"merge_n{n}_{k}"]).double() for k in ("views", "hidden"))
    np.testing.assert_allclose(merge(views, hidden), g[f"merge_n{n}_out"], rtol=1e-6)


@pytest.mark.parametrize("n", [2, 4, 5])
def test_no_patch_reaches_its_own_reconstruction(n):
    """Patch 3's reconstruction: gradient exactly 0 in its own set, which was visible with it, and there only."""
    net, x, order = make(views=n), pictures(1).requires_grad_(), partition(1, 16, generator())
    y = improved_mae.patchify(net(x, order), 8)
    y[0, 3].sum().backward()
    gradient = improved_mae.patchify(x.grad, 8)[0].abs().sum(1)
    ends = np.cumsum(sizes(16, n))[:-1].tolist()
    (own,) = (piece for piece in order[0].tensor_split(ends) if 3 in piece)
    assert set(torch.nonzero(gradient == 0).flatten().tolist()) == set(own.tolist())


# The network


def golden_state(g, depth: int, decoder_depth: int) -> dict[str, torch.Tensor]:
    """MAE's names -> ours; the position codes are computed."""
    renamed = {
        "patch_embed.proj.": "patch_embed.",
        "decoder_pred.": "head.",
        "decoder_blocks.": "decoder.",
        "decoder_norm.": f"decoder.{decoder_depth}.",
        "blocks.": "encoder.",
        "norm.": f"encoder.{depth}.",
    }
    state = {}
    for key in g.files:
        name = key.removeprefix("net_param.")
        if name == key or "pos_embed" in name:
            continue
        old = next((old for old in renamed if name.startswith(old)), None)
        state[renamed[old] + name.removeprefix(old) if old else name] = torch.from_numpy(g[key])
    return state


def test_the_network_equals_maes_code(golden):
    """Latent tokens, the tokens of every view and the merged picture under MAE's weights and forced sets."""
    g = golden("mae")
    side, patch, width, depth, heads, *decoder, n = (int(v) for v in g["net_config"])
    shapes = dict(zip(("decoder_width", "decoder_depth", "decoder_heads"), decoder, strict=True))
    net = make(image_size=side, patch=patch, width=width, encoder_depth=depth, heads=heads, views=n, **shapes)
    net.net.load_state_dict(golden_state(g, depth, shapes["decoder_depth"]))
    net.mean.zero_()
    net.std.fill_(1)  # the golden input is already normalised
    image, visible = torch.from_numpy(g["net_image"]), torch.from_numpy(g["net_visible"])
    close = {"atol": 1e-5, "rtol": 1e-5}
    with torch.no_grad():
        tokens = net.net.tokens(image).gather(1, visible[:, 0, :, None].expand(-1, -1, width))
        torch.testing.assert_close(net.net.encode(tokens), torch.from_numpy(g["net_latent_view0"]), **close)
        views, _ = net.predictions(image, visible.flatten(1))
        torch.testing.assert_close(views[0], torch.from_numpy(g["net_view_tokens"])[0], **close)
        torch.testing.assert_close(net(image, visible.flatten(1)), torch.from_numpy(g["net_merged"]), **close)
    assert sum(p.numel() for p in net.net.parameters()) == int(g["net_trainable"])


@pytest.mark.parametrize("i", [0, 1, 2])
def test_position_codes_equal_maes(golden, i):
    width, side = (int(v) for v in golden("mae")[f"pos_{i}_config"])
    np.testing.assert_allclose(improved_mae.position_code(width, side), golden("mae")[f"pos_{i}"], atol=1e-6)


@pytest.mark.parametrize("width", [768, 512])
def test_position_codes_of_the_papers_widths(golden, width):
    rows = golden("mae")["pos_rows"]
    expected = golden("mae")[f"pos_d{width}_g14_rows"]
    np.testing.assert_allclose(improved_mae.position_code(width, 14)[rows], expected, atol=1e-6)


def test_patches_equal_maes(golden):
    g = golden("mae")
    tokens = improved_mae.patchify(torch.from_numpy(g["patchify_image"]), 4)
    assert torch.equal(tokens, torch.from_numpy(g["patchify_tokens"]))
    image = improved_mae.unpatchify(torch.from_numpy(g["unpatchify_tokens"]), 4)
    assert torch.equal(image, torch.from_numpy(g["unpatchify_image"]))
    assert torch.equal(improved_mae.unpatchify(improved_mae.patchify(pictures(), 8), 8), pictures())


@pytest.mark.parametrize(
    ("encoder", "decoder", "parameters"),
    [
        (2, 2, 21_862_656),
        (4, 2, 36_038_400),
        (6, 6, 62_823_680),
        (12, 8, 111_655_680),
        (8, 12, 95_913_728),
        (2, 4, 28_167_424),
    ],
)
def test_sizes_of_the_depths_in_table_2(encoder, decoder, parameters):
    """E12D8 is MAE's ViT-Base without its position tables."""
    with torch.device("meta"):
        net = Autoencoder(Config(encoder_depth=encoder, decoder_depth=decoder, lpips="off"))
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_e2d4_takes_a_step_at_full_width():
    """224 px, widths 768 and 512: one image, one step, finite and other weights after it."""
    torch.manual_seed(0)
    net = ImprovedMAE(Config(lpips="off", warmup_epochs=0, batch_size=1))
    before = net.net.head.weight.detach().clone()
    terms = net.step(pictures(1, 224), net.optimizers(1, 10), generator())
    assert math.isfinite(terms["total"].item())
    assert not torch.equal(before, net.net.head.weight)


def test_the_encoder_sees_visible_tokens_only():
    """196 patches in 4 views: 49 tokens and the class token go through the encoder, 197 through the decoder."""
    seen = {}
    net = make(image_size=112, patch=8)
    net.net.encoder[0].register_forward_hook(lambda _, x, y: seen.update(encoder=x[0].shape))
    net.net.decoder[0].register_forward_hook(lambda _, x, y: seen.update(decoder=x[0].shape))
    net(pictures(2, 112), partition(2, 196, generator()))
    assert seen["encoder"] == (8, 50, 16)
    assert seen["decoder"] == (8, 197, 8)


# Loss, training, score


def test_eq_4_is_the_weighted_sum_of_its_terms():
    x, y = pictures(2), pictures(2).flip(3)
    terms = make(ssim_weight=2.0, l1_weight=3.0).terms(x, y)
    assert terms["l1"].item() == pytest.approx((x - y).abs().mean().item(), rel=1e-6)
    assert terms["total"].item() == pytest.approx(2 * terms["ssim"].item() + 3 * terms["l1"].item(), rel=1e-6)
    windowed = make(ssim="windowed").terms(x, y)
    assert windowed["ssim"].item() == pytest.approx(losses.ssim(x, y, padding="valid").item(), rel=1e-6)
    assert terms["ssim"].item() == pytest.approx(losses.global_ssim(x, y).item(), rel=1e-6)


def test_the_perceptual_term_joins_the_loss_and_the_identity(shared, monkeypatch):
    monkeypatch.setenv("ADLIB_WEIGHTS", str(shared / "weights"))
    net = make(image_size=64, lpips="squeeze", lpips_weight=0.5)
    x, y = pictures(2, 64), pictures(2, 64).flip(3)
    terms = net.terms(x, y)
    expected = terms["ssim"] + terms["l1"] + 0.5 * terms["lpips"]
    assert terms["total"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert [network.name for network in net.networks] == ["lpips squeeze"]
    assert make(image_size=64).networks == []


@pytest.mark.parametrize("which", ["a", "b", "c"])
def test_learning_rates_equal_maes_schedule(golden, which):
    """Warm-up from 0, half a cosine to the least rate (ours is 0; of c it is 1e-6)."""
    g = golden("mae")
    base, batch, warmup, epochs, least = g[f"lr_{which}_config"]
    rate = base * batch / 256
    for epoch, expected in zip(g[f"lr_{which}_epoch"], g[f"lr_{which}_value"], strict=True):
        share = improved_mae.schedule(epoch, warmup, epochs)
        ours = rate * share if epoch < warmup else least + (rate - least) * share
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_adamw_has_maes_settings():
    """Rate 1e-3 * 64 / 256; no decay of biases and norms, decay of matrices and of both tokens."""
    net = make(warmup_epochs=1, epochs=10)
    ((optimizer, scheduler),) = net.optimizers(steps_per_epoch=4, total_steps=40)
    assert optimizer.param_groups[0]["initial_lr"] == pytest.approx(2.5e-4)
    assert optimizer.param_groups[0]["lr"] == 0  # warm-up starts at 0
    of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    decays = {name: of[id(p)] for name, p in net.net.named_parameters()}
    assert {decays[name] for name in ("cls_token", "mask_token", "head.weight", "patch_embed.weight")} == {0.05}
    assert {decay for name, decay in decays.items() if name.endswith("bias") or "norm" in name} == {0.0}
    ((absolute, _),) = make(lr_rule="absolute", warmup_epochs=0).optimizers(4, 40)
    assert absolute.param_groups[0]["lr"] == 1e-3
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.5e-4)  # the top, after one epoch


def test_the_score_is_eq_1_with_fixed_sets():
    """Mean squared error; the same in a batch and alone; the mean over draws where there are several."""
    x = pictures(3)
    with torch.no_grad():
        net = make()
        error = (net(x, net.orders.expand(3, -1)) - x) ** 2
        scores = net.score(x)
        torch.testing.assert_close(scores.image, error.mean((1, 2, 3)))
        torch.testing.assert_close(scores.map, error.mean(1))
        torch.testing.assert_close(net.score(x[1:2]).image, scores.image[1:2])
        several = make(test_draws=3)
        each = torch.stack([((several(x, o.expand(3, -1)) - x) ** 2).mean((1, 2, 3)) for o in several.orders])
        torch.testing.assert_close(several.score(x).image, each.mean(0))
    assert not torch.equal(make(mask_seed=1).orders, net.orders)


def test_augmentation_flips_mirrors_at_the_border_and_keeps_the_range():
    """About half of many pictures are flipped exactly; with "all" no value leaves the range: no black corner."""
    x = 0.2 + 0.6 * pictures(64)
    assert improved_mae.augmented(x, "none", generator()) is x
    flipped = improved_mae.augmented(x, "flip", generator())
    same = (flipped == x).flatten(1).all(1)
    mirrored = (flipped == x.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 16 < same.sum() < 48
    turned = improved_mae.augmented(x, "all", generator())
    assert 0.2 - 1e-4 < turned.min()
    assert turned.max() < 0.8 + 1e-4
    assert torch.equal(turned, improved_mae.augmented(x, "all", generator()))


def test_augmentation_turns_by_at_most_ten_degrees_and_keeps_four_fifths():
    """A ramp from left to right stays one: its slope is that of a crop with 0.89 to 1 of the side, turned a little."""
    ramp = torch.linspace(-1, 1, 64).expand(200, 3, 64, 64)
    turned = improved_mae.augmented(ramp, "all", generator())
    middle = turned[:, 0, 24:40, 24:40]
    along = (middle[:, :, 1:] - middle[:, :, :-1]).mean((1, 2)) * 63 / 2
    across = (middle[:, 1:] - middle[:, :-1]).mean((1, 2)) * 63 / 2
    share = (along**2 + across**2).sqrt()
    angle = torch.rad2deg((across / along).atan()).abs()
    assert math.sqrt(0.8) - 0.01 < share.min() < 0.92
    assert 0.98 < share.max() < 1.01
    assert 8 < angle.max() < 10.1
    assert 0.3 < (along < 0).float().mean() < 0.7  # flips


# What is refused


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mask_ratio": 0.7}, "mask_ratio 0.7 gives 1 / .1 - r. = 3.333 views, no whole number; valid are 0.5, 0.75"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"mask_ratio": 0.0}, "mask_ratio"),
        ({"views": 17}, "17 views of 16 patches; there must be 2 to 16"),
        ({"image_size": 100}, "image_size 100 is not a multiple of patch 8; use 96 or 104"),
        ({"width": 18, "heads": 2}, "width 18 with 2 heads"),
        ({"epochs": 5}, "warmup_epochs 10 must be below the 5 epochs"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(changes, says):
    with pytest.raises(UserError, match=says):
        Config(**SMALL | changes)


def test_missing_weights_of_lpips_are_told_never_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("ADLIB_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=r"LPIPS needs the ImageNet weights of alexnet.*or set lpips to .* off"):
        make(lpips="alex")
