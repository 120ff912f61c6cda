"""PaDiM, PatchCore and SPADE: against golden/baselines.npz, other libraries, exact sizes and by hand."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import mahalanobis
from vectors import near, tensors

from adlib.common.errors import UserError
from adlib.embeddings import Embeddings
from adlib.layers import gaussian_blur
from adlib.models import padim, patchcore, spade
from adlib.models.padim import PaDiM
from adlib.models.patchcore import PatchCore, greedy, nearest, patches, reweighted, vectors

LITE0 = {"image_size": 64, "resize_mode": "squash", "resize": None, "backbone": "tf_efficientnet_lite0"}


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
    net = PaDiM(padim.Config.from_dict(LITE0 | {"channels": rows.shape[2]}))
    net.mean, net.factor, net.backbone.strides = found, factor, [4]  # the repository's grid of 8 x 8 at 32 pixels
    scores = net.score(rows[count:].mT.unflatten(2, (8, 8)))
    near(scores.map, smooth)
    near(scores.image, image)


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


@pytest.mark.parametrize(("k", "key"), [(1, "nn_image_official_k1"), (3, "nn_image_official_k3")])
def test_patchcores_score_is_the_authors(golden, k, key):
    """From embeddings to image score, in their squares; our score of one neighbour is the root."""
    bank, query, wanted, plain = tensors(golden, "nn_bank", "nn_query", key, "nn_image_euclid")
    count, h, w = golden("baselines")["nn_grid"].tolist()
    net = PatchCore(patchcore.Config.from_dict(LITE0 | {"layers": [2, 3], "neighbours": k, "reweight": 0}))
    net.bank = bank
    scores = net.score(query.unflatten(0, (count, h, w)).permute(0, 3, 1, 2))
    squares = nearest(query, bank, k)[0].square().mean(1).unflatten(0, (count, h * w)).amax(1)
    near(squares, wanted)
    if k == 1:
        near(scores.image, plain)
    near(scores.image, nearest(query, bank, k)[0].mean(1).unflatten(0, (count, h * w)).amax(1))


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
