"""The baselines of the comparison: against golden/baselines.npz, other libraries, exact sizes and by hand."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import mahalanobis

from adlib import losses
from adlib.common.errors import UserError
from adlib.embeddings import Embeddings
from adlib.layers import gaussian_blur
from adlib.models import ae_ssim, cutpaste, ganomaly, padim, patchcore, riad, spade
from adlib.models import reverse_distillation as rd
from adlib.models.padim import PaDiM
from adlib.models.patchcore import PatchCore, greedy, nearest, patches, reweighted, vectors

LITE0 = {"image_size": 64, "resize_mode": "squash", "resize": None, "backbone": "tf_efficientnet_lite0"}


def tensors(golden, *names: str) -> list[torch.Tensor]:
    g = golden("baselines")
    return [torch.from_numpy(np.asarray(g[name])) for name in names]


def near(found: torch.Tensor, wanted: torch.Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, wanted.to(found.dtype), rtol=rtol, atol=atol)


# PaDiM


def test_coarse_features_are_repeated(golden):
    *maps, wanted = tensors(golden, "pd_l1", "pd_l2", "pd_l3", "pd_concat")
    assert torch.equal(padim.concatenated(tuple(maps))[:1], wanted)


def test_padim_is_the_repositorys(golden):
    """Mean, covariance with N - 1 and 0.01 on its diagonal, distance, enlarged and smoothed map, maximum."""
    *maps, drawn, mean, cov, far = tensors(golden, "pd_l1", "pd_l2", "pd_l3", "pd_idx", "pd_mean", "pd_cov", "pd_maha")
    rows = padim.concatenated(tuple(maps)).index_select(1, drawn).flatten(2).mT
    count = int(golden("baselines")["pd_ntrain"])
    found, factor = padim.gaussians(lambda part: rows[part.start : part.stop], count)
    near(found.T, mean)
    near((factor @ factor.mT).permute(1, 2, 0), cov)
    grid = padim.distance(rows[count:], found, factor).unflatten(1, (8, 8))
    near(grid, far)
    raw, smooth, image = tensors(golden, "pd_map_raw", "pd_map_smooth", "pd_image")
    large = F.interpolate(grid[:, None], size=(32, 32), mode="bilinear")[:, 0]
    near(large, raw)
    near(gaussian_blur(large, 4.0), smooth)
    near(gaussian_blur(large, 4.0).flatten(1).amax(1), image)


def test_padims_distance_is_scipys():
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(9, 2, 3, generator=g, dtype=torch.float64)
    mean, factor = padim.gaussians(lambda part: rows[part.start : part.stop], len(rows))
    for place in range(2):
        covariance = np.cov(rows[:, place].numpy().T) + 0.01 * np.eye(3)
        wanted = mahalanobis(rows[4, place], rows[:, place].mean(0), np.linalg.inv(covariance))
        assert padim.distance(rows[4:5], mean, factor)[0, place] == pytest.approx(wanted)


def test_padim_fits_in_parts_as_in_one():
    """40 pictures in parts of 32: the mean, and factors that reproduce numpy's covariance of all at once."""
    detector = PaDiM(padim.Config.from_dict(LITE0 | {"channels": 5}))
    stored = torch.randn(40, 5, 4, 4, generator=torch.Generator().manual_seed(0)).numpy()
    detector.fit(Embeddings([[stored]], single=True), torch.Generator())
    rows = detector.rows(torch.from_numpy(stored))
    near(detector.mean, rows.mean(0))
    covariance = np.stack([np.cov(rows[:, place].numpy().T) for place in range(16)]) + 0.01 * np.eye(5)
    near(detector.factor @ detector.factor.mT, torch.from_numpy(covariance))


def test_padim_draws_the_repositorys_channels():
    """Python's random.sample(range(448), 100) with seed 1024, as in its main.py."""
    import random

    random.seed(1024)
    wanted = random.sample(range(448), 100)
    found = PaDiM(padim.Config.from_dict({"backbone": "resnet18", "pretrained": False, "channels": 100}))
    assert found.drawn.tolist() == wanted


@pytest.mark.parametrize(
    ("method", "count"), [("padim", 2_782_784), ("patchcore", 2_782_784)], ids=["padim", "patchcore"]
)
def test_parameters_are_those_of_resnet18_to_its_third_stage(method, count):
    kind, config = {"padim": (PaDiM, padim.Config), "patchcore": (PatchCore, patchcore.Config)}[method]
    changes = {"backbone": "resnet18", "pretrained": False} | ({"channels": 100} if method == "padim" else {})
    with torch.device("meta"):
        net = kind(config.from_dict(changes))
    assert sum(p.numel() for p in net.parameters()) == count


def test_what_padim_refuses():
    with pytest.raises(UserError, match="its layers have"):
        PaDiM(padim.Config.from_dict(LITE0 | {"channels": 500}))
    with pytest.raises(UserError, match="at least 2 training images"):
        padim.gaussians(lambda part: torch.zeros(1, 4, 3), 1)


# PatchCore


def test_averaged_neighbourhoods(golden):
    fine, coarse, wanted = tensors(golden, "pc_l2", "pc_l3", "pc_embed_avgpool")
    near(vectors(patches((fine, coarse), "average")), wanted)


def test_official_neighbourhoods(golden):
    """Pooled to 16 numbers for each layer, then to 12; and 1024 / 1024 of ResNet-18's channels, some rows."""
    fine, coarse, wanted = tensors(golden, "pc_l2", "pc_l3", "pc_embed_official")
    near(vectors(patches((fine, coarse), "official", 12, 16)), wanted)
    fine, coarse, rows, wanted = tensors(golden, "pc_r18_l2", "pc_r18_l3", "pc_r18_embed_rows", "pc_r18_embed_1024")
    near(vectors(patches((fine, coarse), "official", 1024))[rows], wanted)


def test_the_thinning_is_farthest_point_with_its_start(golden):
    features, wanted, start = tensors(golden, "cs_feats", "cs_idx_start", "cs_start")
    found = greedy(features, len(wanted), int(start))
    assert found.tolist() == wanted.tolist()
    radius = torch.cdist(features, features[found]).amin(1).max()
    near(radius, tensors(golden, "cs_radius")[0][2])


def test_thinning_by_hand():
    """On a line at 0, 1, 5, 6, from 0: the farthest is 6, then 1 and 5 lie 1 away each, the first wins."""
    rows = torch.tensor([[0.0], [1.0], [5.0], [6.0]])
    assert greedy(rows, 3).tolist() == [0, 3, 1]


def test_neighbours_are_the_authors(golden):
    """Theirs are squares; the image score is the largest; the map of the nearest one is enlarged and smoothed."""
    bank, query, index, squares, squares3 = tensors(
        golden, "nn_bank", "nn_query", "nn_index", "nn_patch_official_k1", "nn_patch_official_k3"
    )
    far, which = nearest(query, bank, 3)
    assert which[:, 0].tolist() == index.tolist()
    near(far[:, 0].square(), squares)
    near(far.square().mean(1), squares3)
    count, h, w = golden("baselines")["nn_grid"].tolist()
    grid = far[:, 0].square().unflatten(0, (count, h, w))
    large = F.interpolate(grid[:, None], size=(32, 32), mode="bilinear")[:, 0]
    near(gaussian_blur(large, 4.0), tensors(golden, "nn_map_official")[0])


def test_nearest_is_cdists_for_many_queries_and_large_numbers():
    """More queries than are compared at a time; far from the origin the distance does not cancel."""
    generator = torch.Generator().manual_seed(0)
    queries, bank = (10 + torch.randn(n, 8, generator=generator) for n in (5000, 40))
    far, which = nearest(queries, bank, 2)
    wanted = torch.cdist(queries.double(), bank.double()).topk(2, largest=False)
    assert torch.allclose(far.double(), wanted.values, rtol=1e-3)
    assert (which == wanted.indices).float().mean() > 0.98  # ties within the rounding of the search


@pytest.mark.parametrize("b", [3, 9])
def test_reweighting_is_anomalibs(golden, b):
    """Eq. (7), the nearest row itself among the b; the plain maximum beside it."""
    bank, query, wanted, plain = tensors(golden, "nn_bank", "nn_query", f"nn_image_reweighted_b{b}", "nn_image_euclid")
    _, h, w = golden("baselines")["nn_grid"].tolist()
    far, which = nearest(query, bank)
    for i, part in enumerate(far[:, 0].split(h * w)):
        at = i * h * w + int(part.argmax())
        near(part.max().double(), plain[i])
        near(reweighted(query[at], far[at, 0], which[at, 0], bank, b).double(), wanted[i])


def test_reweighting_stays_between_its_limits_and_does_not_overflow():
    """1 - 1/b of the distance at least, all of it at most, also where exp(distance) is infinite."""
    bank = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    for query in (4.0, 1000.0):
        far, which = nearest(torch.tensor([[query]]), bank)
        found = reweighted(torch.tensor([query]), far[0, 0], which[0, 0], bank, 3)
        assert (1 - 1 / 3) * far[0, 0] <= found <= far[0, 0]


def test_patchcore_keeps_the_share_it_is_asked_for():
    """Four pictures of 8 x 8 places: a quarter of 256 vectors, or all of them; then training pictures score 0."""
    g = torch.Generator().manual_seed(0)
    stored = torch.randn(4, 32, 8, 8, generator=g)
    for share, kept in ((0.25, 64), (1.0, 256)):
        detector = PatchCore(patchcore.Config.from_dict(LITE0 | {"dim": 32, "coreset": share, "projected": 8})).eval()
        detector.fit(Embeddings([[stored.numpy()]], single=True), torch.Generator().manual_seed(1))
        assert len(detector.bank) == kept
    assert detector.score(stored).image.abs().max() < 1e-5


def test_a_reweighted_score_is_the_pool_of_its_cells():
    config = LITE0 | {"dim": 32, "coreset": 1.0, "reweight": 3}
    detector = PatchCore(patchcore.Config.from_dict(config)).eval()
    g = torch.Generator().manual_seed(0)
    detector.fit(Embeddings([[torch.randn(4, 32, 8, 8, generator=g).numpy()]], single=True), g)
    found = detector.score(torch.randn(3, 32, 8, 8, generator=g))
    near(detector.pool(found.cells), found.image)


def test_patchcore_joins_layers():
    with pytest.raises(UserError, match="joins two or more"):
        PatchCore(patchcore.Config.from_dict(LITE0 | {"layers": (2,)}))


# SPADE


def test_spade_is_the_repositorys(golden):
    """Five nearest pictures by their pooled features; exact search of places in them; mean of the levels, smoothed."""
    pooled, *levels = tensors(golden, "sp_avgpool", "sp_l1", "sp_l2", "sp_l3")
    index, image, raw, smooth = tensors(golden, "sp_knn_index", "sp_image", "sp_map_raw", "sp_map_smooth")
    count, k = (int(golden("baselines")[name]) for name in ("sp_ntrain", "sp_k"))
    far, which = spade.nearest_images(pooled[count:], pooled[:count], k)
    near(far.mean(1), image)
    assert which.sort().values.tolist() == index.sort().values.tolist()
    total = 0
    for maps in levels:
        found = torch.stack([spade.nearest_places(maps[count + i], maps[which[i]]) for i in range(2)])
        total = total + F.interpolate(found[:, None], size=(32, 32), mode="bilinear")[:, 0]
    near(total / 3, raw)
    near(gaussian_blur(total / 3, 4.0), smooth)


def test_spade_scores_as_its_parts():
    """A fitted system on its own training pictures: image score the mean of 0 and the next distances, map nearly 0."""
    net = spade.SPADE(spade.Config.from_dict(LITE0 | {"image_neighbours": 2, "map_neighbours": 1})).eval()
    images = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stored = net.embed(images)
        net.fit(Embeddings([[part.numpy() for part in stored]], single=False), torch.Generator())
        found = net.score(stored)
    far = torch.cdist(stored[0], stored[0]).sort().values[:, 1] / 2
    near(found.image, far, atol=1e-4)
    assert found.map.abs().max() < 0.05  # the gallery is rounded to half precision
    near(net.pool(found.cells), found.image)


def test_spade_wants_ascending_layers():
    with pytest.raises(UserError, match="must ascend, each once"):
        spade.SPADE(spade.Config.from_dict(LITE0 | {"layers": (2, 1)}))


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


MEMORY = """
import resource, sys, numpy as np, torch
from adlib.embeddings import Embeddings
from adlib.models import get
name, backbone, channels, side = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
kind, config = get(name)
size = side * (4 if name == "padim" else 8)
small = {"backbone": backbone, "pretrained": False, "image_size": size, "resize_mode": "squash", "resize": None}
more = {"channels": channels} if name == "padim" else {"embed_by": "average", "coreset": 0.001}
detector = kind(config.from_dict(small | more))
rows = np.random.default_rng(0).standard_normal((400, channels, side, side), dtype=np.float32)
with torch.inference_mode():
    detector.fit(Embeddings([[rows]], single=True), torch.Generator().manual_seed(0))
    detector.score(torch.from_numpy(rows[:16]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "backbone", "channels", "side"),
    [("padim", "resnet18", 100, 64), ("padim", "wide_resnet50_2", 550, 56), ("patchcore", "resnet18", 384, 32)],
)
def test_400_training_images_fit_into_8_gb(method, backbone, channels, side):
    """The small settings at 256 pixels and PaDiM's published one at 224; the process's largest size in GB."""
    command = [sys.executable, "-c", MEMORY, method, backbone, str(channels), str(side)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    assert float(done.stdout) < 8
