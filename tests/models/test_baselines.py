"""Baselines that learn by steps: against golden/baselines.npz, other libraries, exact sizes and by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from vectors import near, tensors

from adlib import losses
from adlib.common.errors import UserError
from adlib.layers import gaussian_blur
from adlib.models import ae_ssim, cutpaste, ganomaly, riad
from adlib.models import reverse_distillation as rd

# Reverse distillation


@pytest.mark.parametrize(
    ("backbone", "learning", "unused"), [("resnet18", 15_908_480, 525_312), ("wide_resnet50_2", 92_195_328, 8_392_704)]
)
def test_bottleneck_and_decoder_have_the_authors_sizes(backbone, learning, unused):
    """All that their code builds, less the convolution that it never uses."""
    with torch.device("meta"):
        net = rd.ReverseDistillation(rd.Config(backbone=backbone, pretrained=False))
    found = sum(p.numel() for part in (net.bottleneck, net.decoder) for p in part.parameters())
    assert found == learning - unused


def test_the_student_rebuilds_the_teachers_shapes():
    net = rd.ReverseDistillation(rd.Config(backbone="resnet18", pretrained=False, image_size=64)).eval()
    with torch.no_grad():
        maps = net.embed(torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
        rebuilt = net.decoder(net.bottleneck(maps))
    assert [m.shape for m in rebuilt] == [m.shape for m in maps]


def test_distillation_is_the_authors(golden):
    """Loss of flattened maps; sum and product of the enlarged maps; the smoothed sum and its maximum."""
    teacher, student = (tuple(tensors(golden, *(f"rd_{who}{i}" for i in (1, 2, 3)))) for who in "ts")
    near(rd.distance(teacher, student), tensors(golden, "rd_loss")[0])
    for combine, name in (("sum", "rd_map_sum_raw"), ("product", "rd_map_mul_raw")):
        near(rd.anomaly_map(teacher, student, (32, 32), combine), tensors(golden, name)[0])
    smooth = gaussian_blur(rd.anomaly_map(teacher, student, (32, 32)), 4.0)
    near(smooth, tensors(golden, "rd_map_sum_smooth")[0])
    near(smooth.flatten(1).amax(1).double(), tensors(golden, "rd_image_sum")[0])


def test_distance_by_hand():
    """One scale, two places of one channel: (3, 4) against (4, 3): cosine 24 / 25, distance 0.04."""
    a, b = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2), torch.tensor([4.0, 3.0]).view(1, 1, 1, 2)
    assert rd.distance((a,), (b,)) == pytest.approx(0.04, abs=1e-6)


def test_a_teacher_that_is_no_resnet_is_refused():
    with pytest.raises(UserError, match="mirrors a ResNet"):
        rd.ReverseDistillation(rd.Config(backbone="tf_efficientnet_lite0", image_size=64))


# GANomaly


@pytest.mark.parametrize(
    ("side", "width", "generator", "discriminator"),
    [
        (32, 64, 3_206_528, 663_296),
        (64, 64, 10_729_856, 2_765_568),
        (128, 64, 38_359_424, 11_164_416),
        (256, 64, 143_950_208, 44_739_328),
        (128, 32, 10_823_872, 2_796_928),
    ],
)
def test_ganomaly_has_the_authors_sizes(side, width, generator, discriminator):
    with torch.device("meta"):
        net = ganomaly.GANomaly(ganomaly.Config(image_size=side, width=width))
    size = lambda *parts: sum(p.numel() for part in parts for p in part.parameters())
    assert size(net.encoder, net.decoder, net.again) == generator
    assert size(net.discriminator) == discriminator


def test_ganomalys_terms_are_the_authors(golden):
    """Squared distance of features, l1 of pictures times 50, squared distance of codes; cross-entropy, halved."""
    names = ("feat_real", "feat_fake", "x", "xhat", "z", "zhat", "pred_real", "pred_fake", "losses_adv_con_enc_g_d")
    real, fake, x, made, code, again, told_real, told_fake, wanted = tensors(golden, *(f"ga_{name}" for name in names))
    net = ganomaly.GANomaly(ganomaly.Config())
    logit = lambda p: p.logit()[:, None]

    class Told(torch.nn.Module):
        """A discriminator that says of the real pictures and of the made ones what is stored."""

        def features(self, images):
            return real if torch.equal(images, x) else fake

        def forward(self, images):
            return logit(told_real if torch.equal(images, x) else told_fake)

    net.discriminator = Told()
    terms = net.generator_terms(x, made, code[:2].flatten(1), again[:2].flatten(1))
    found = [terms[name] for name in ("adversarial", "content", "code", "total")]
    near(torch.stack([*found, net.discriminator_loss(x, made)]), wanted)


def test_ganomalys_score_is_the_authors(golden):
    """Mean over the code of the squared distance."""
    code, again, wanted = tensors(golden, "ga_z", "ga_zhat", "ga_score")
    net = ganomaly.GANomaly(ganomaly.Config()).eval()
    net.rebuilt = lambda x: (None, code.flatten(1), again.flatten(1))
    near(net.score(torch.zeros(6, 3, 32, 32)).image, wanted)


def test_ganomaly_wants_a_power_of_two():
    with pytest.raises(UserError, match="no power of two; use 32 or 64"):
        ganomaly.Config(image_size=48)


# RIAD


def test_riad_has_the_repositorys_sizes():
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in riad.UNet(width).parameters()) for width in (64, 16)]
    assert sizes == [28_805_699, 1_803_923]


@pytest.mark.parametrize(("cells", "sizes"), [(256, [86, 85, 85]), (9, [3, 3, 3])])
def test_the_three_sets_hide_every_cell_once(cells, sizes):
    """A number for each cell is a partition; sizes differ by one at most (the repository's last set is smaller)."""
    side = int(cells**0.5)
    owner = riad.masks(4, (side, side), torch.Generator().manual_seed(0))
    for each in owner:
        assert sorted(torch.bincount(each.flatten(), minlength=3).tolist(), reverse=True) == sizes
    assert not torch.equal(owner[0], owner[1])


def test_a_cell_is_painted_without_being_seen():
    """A network that copies what it sees paints black everywhere: of each cell it saw nothing."""
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.1
    owner = riad.masks(2, (4, 4), torch.Generator().manual_seed(1))
    assert riad.painted(lambda seen: seen, x, owner).abs().max() == 0
    assert torch.equal(riad.painted(lambda seen: x, x, owner), x)


def test_three_paintings_are_joined_as_the_repositorys(golden):
    """Each cell from the painting of the set that hid it: its first sets, cells of two pixels."""
    parts, masks, wanted = tensors(golden, "ri_parts", "ri_masks", "ri_composed")
    size = int(golden("baselines")["ri_k"][0])
    owner = masks[0].float().argmin(0)[None, ::size, ::size]  # a set's mask is 0 where it hides
    turns = iter(parts)
    near(riad.painted(lambda seen: next(turns), torch.zeros_like(wanted), owner), wanted)


def test_riads_terms_are_the_repositorys(golden):
    """In -1..1: mean square, dissimilarity of gradients after a median, and SSIM of range 1 with zeros beyond."""
    x, made, similar, mean_map = tensors(golden, "ri_img", "ri_rec", "ri_gms_full", "ri_msgms_map")
    near(riad.similarity(x, made), similar)
    near(riad.dissimilarity(x, made)[:, None], mean_map)
    terms = riad.RIAD(riad.Config(width=1)).terms(made, x)
    g = golden("baselines")
    for name, key in (("l2", "ri_l2_loss"), ("gradients", "ri_msgms_loss"), ("ssim", "ri_ssim_loss")):
        assert terms[name] == pytest.approx(float(g[key]), abs=1e-5)
    assert terms["total"] == pytest.approx(sum(float(terms[name]) for name in ("l2", "gradients", "ssim")))


def test_riads_score_does_not_depend_on_the_batch_or_the_call():
    net = riad.RIAD(riad.Config(image_size=64, width=2, cells=(4, 8))).eval()
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        near(net.score(x).image[1:], net.score(x[1:]).image)


@pytest.mark.parametrize("changes", [{"cells": (3,)}, {"image_size": 40}, {"image_size": 32, "cells": (16,)}], ids=str)
def test_what_riad_refuses(changes):
    with pytest.raises(UserError, match="multiple of 16 and of each, with at least 9 cells"):
        riad.Config(**changes)


# AE-SSIM


@pytest.mark.parametrize(
    ("side", "code", "colours", "count"), [(128, 100, 1, 1_048_549), (256, 100, 3, 1_083_431), (256, 500, 3, 2_722_231)]
)
def test_ae_ssim_has_the_repositorys_sizes(side, code, colours, count):
    with torch.device("meta"):
        net = ae_ssim.autoencoder(side, code, colours)
        assert net(torch.zeros(1, colours, side, side)).shape == (1, colours, side, side)
    assert sum(p.numel() for p in net.parameters()) == count


def test_ae_ssims_map_is_scikit_images(golden):
    """Gaussian window, population covariance; away from the border, where paddings differ."""
    x, made, wanted = (t[None, None] for t in tensors(golden, "ae_x", "ae_rec", "ae_ssim_map_gauss11"))
    found = losses.ssim(x, made, reduction="none", padding="reflect")
    near(found[..., 5:-5, 5:-5], wanted[..., 5:-5, 5:-5], atol=5e-5)


def test_ae_ssim_refuses_other_sides():
    with pytest.raises(UserError, match="made for 128 or 256 pixels"):
        ae_ssim.Config(image_size=192)


# CutPaste


@pytest.mark.parametrize(("layers", "count"), [(1, 11_506_499), (2, 11_770_179), (8, 13_352_259)])
def test_cutpaste_has_the_repositorys_sizes(layers, count):
    with torch.device("meta"):
        net = cutpaste.CutPaste(cutpaste.Config(head=layers))
    assert sum(p.numel() for p in net.parameters()) == count


def test_cutpastes_distance_is_the_repositorys(golden):
    """Features of length 1, mean and precision of Ledoit and Wolf."""
    train, test, wanted = tensors(golden, "cp_train", "cp_test", "cp_maha")
    mean, precision = cutpaste.gaussian(F.normalize(train))
    near(cutpaste.distance(F.normalize(test), mean, precision), wanted, rtol=1e-3)


def test_rectangles_have_the_papers_sizes():
    """Of 300 pictures of noise, 2 to 15 % of the pixels change, save for what the whole pixels cut off."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(300, 3, 64, 64, generator=g)
    share = (cutpaste.rectangle(x, 0.0, g) != x).any(1).float().mean((1, 2))
    assert 0.015 < share.min() < 0.03
    assert 0.12 < share.max() < 0.16


def test_an_unturned_piece_of_whole_pixels_is_a_copy():
    """4 x 6 pixels cut at row 0, column 0 and pasted at the other corner of 16 x 16."""
    x = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
    places = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    found = cutpaste.pasted(x, x, torch.tensor([[4.0, 6.0]]), places, torch.zeros(1))
    near(found[..., -4:, -6:], x[..., :4, :6])
    near(found[..., :-4, :], x[..., :-4, :])
    quarter = cutpaste.pasted(x, x, torch.tensor([[4.0, 4.0]]), places, torch.tensor([np.pi / 2]))
    near(quarter[0, 0, -4:, -4:], torch.rot90(x[0, 0, :4, :4], -1), atol=1e-4)


def test_scars_are_thin():
    """At most 25 x 16 pixels, turned or not."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(200, 3, 128, 128, generator=g)
    count = (cutpaste.scar(x, 0.0, g) != x).any(1).sum((1, 2))
    assert count.max() <= 26 * 17
    assert count.min() >= 10


def test_jitter_of_zero_changes_nothing():
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    near(cutpaste.jittered(x, 0.0, torch.Generator()), x)
