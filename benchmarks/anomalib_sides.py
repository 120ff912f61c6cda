"""Both sides of benchmarks/anomalib_check.py: four systems of adlib and of anomalib, with the same weights, behind the
same calls.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib import images
from adlib.backbones import Features, load_weights
from adlib.common.seeds import generator, seeded
from adlib.embeddings import Embeddings
from adlib.models import csflow, draem, multiscale, padim, patchcore
from adlib.synthesis.texture_bank import texture_source

BACKBONE = "resnet18.tv_in1k"
STEPS = 5  # of training, for what learns by steps
AT_ONCE = 16  # pictures that are embedded or scored at a time
STEP_BATCH = 2  # pictures of a training step of DRAEM
GAMMA = 0.1  # of CS-Flow's networks; at 0 the flow would be the identity
WIDTH = 304  # channels that anomalib's flow is written for
REWEIGHT = 9  # b of PatchCore


@dataclass
class Data:
    """What both sides read. options: channels, coreset, hidden, draem_width."""

    train: np.ndarray  # uint8 [N,3,S,S]
    device: str
    options: Namespace

    @property
    def side(self) -> int:
        return self.train.shape[-1]

    def batches(self) -> list[range]:
        return [range(i, min(i + AT_ONCE, len(self.train))) for i in range(0, len(self.train), AT_ONCE)]

    def pictures(self, rows) -> Tensor:
        """[n,3,S,S] in 0..1; rows beyond the last begin anew."""
        return images.to_float(self.train[np.asarray(rows) % len(self.train)], self.device)

    @cached_property
    def trunk(self) -> Features:
        """The embedded EfficientNet-Lite0: 112 channels at stride 16 and 192 at stride 32, together WIDTH."""
        return Features("tf_efficientnet_lite0", ("blocks.4", "blocks.5")).to(self.device)

    @torch.no_grad()
    def features(self, rows) -> tuple[Tensor, ...]:
        """Maps [n,304,S/32,S/32] of the pictures, of every second and of every fourth pixel."""
        both = [self.trunk(each) for each in multiscale.sizes(self.pictures(rows))]
        return tuple(torch.cat([F.avg_pool2d(fine, 2), coarse], 1) for fine, coarse in both)

    @cached_property
    def damaged(self) -> tuple[Tensor, Tensor, Tensor]:
        """Damaged pictures, the pictures and the masks of one training step, by adlib's simulator."""
        bank = texture_source("photographs").bank(self.side).to(self.device)
        return draem.Config().simulator()(self.pictures(range(STEP_BATCH)), bank, generator(0, "damage", self.device))


@dataclass
class Side:
    """One system of one library. fit: statistics of all training pictures, or STEPS steps; inputs: of n pictures."""

    model: nn.Module
    fit: Callable[[], None]
    score: Callable  # inputs -> image scores [n], map [n,h,w]
    inputs: Callable[[int], Tensor | tuple[Tensor, ...]]


ANOMALIB = {
    "padim.torch_model": ("PadimModel",),
    "patchcore.torch_model": ("PatchcoreModel",),
    "csflow.torch_model": ("CrossScaleFlow", "CsFlowModel", "ParallelGlowCouplingLayer", "ParallelPermute"),
    "csflow.anomaly_map": ("AnomalyMapGenerator",),
    "csflow.loss": ("CsFlowLoss",),
    "draem.torch_model": ("DraemModel", "ReconstructiveSubNetwork", "DiscriminativeSubNetwork"),
    "draem.loss": ("DraemLoss",),
}


def anomalib() -> SimpleNamespace:
    """anomalib's classes by name; imported here, since adlib's side is measured without them."""
    modules = {module: import_module(f"anomalib.models.image.{module}") for module in ANOMALIB}
    return SimpleNamespace(**{name: getattr(modules[m], name) for m, names in ANOMALIB.items() for name in names})


# PaDiM and PatchCore: statistics


def _geometry(data: Data) -> dict:
    return {"image_size": data.side, "resize_mode": "squash", "resize": None}


def padim_adlib(data: Data) -> Side:
    config = padim.Config(**_geometry(data), backbone=BACKBONE, channels=data.options.channels)
    return _fitted(padim.PaDiM(config), data)


def patchcore_adlib(data: Data) -> Side:
    setting = {"backbone": BACKBONE, "embed_by": "average", "coreset": data.options.coreset, "reweight": REWEIGHT}
    return _fitted(patchcore.PatchCore(patchcore.Config(**_geometry(data), **setting)), data)


def _fitted(detector, data: Data) -> Side:
    """adlib's contract: embed all pictures, then fit; embed and score a batch."""
    detector = detector.to(data.device).eval()

    @torch.inference_mode()
    def fit() -> None:
        collected = None
        for rows in data.batches():
            maps = detector.embed(data.pictures(rows))
            if collected is None:
                collected = maps.new_empty((len(data.train), *maps.shape[1:]))
            collected[rows.start : rows.stop] = maps
        detector.fit(Embeddings([[collected]], single=True), generator(0, "fit", data.device))

    @torch.inference_mode()
    def score(pictures: Tensor) -> tuple[Tensor, Tensor]:
        return detector.score(detector.embed(pictures))[:2]

    return Side(detector, fit, score, lambda n: data.pictures(range(n)))


def padim_anomalib(data: Data) -> Side:
    layers = ["layer1", "layer2", "layer3"]
    model = anomalib().PadimModel("resnet18", layers, pre_trained=False, n_features=data.options.channels)
    return _collected(model, data, model.fit)


def patchcore_anomalib(data: Data) -> Side:
    model = anomalib().PatchcoreModel(["layer2", "layer3"], "resnet18", pre_trained=False, num_neighbors=REWEIGHT)
    return _collected(model, data, lambda: model.subsample_embedding(data.options.coreset))


def _collected(model: nn.Module, data: Data, finish: Callable[[], None]) -> Side:
    """anomalib's way: in training mode the model collects what it sees, then `finish` makes the statistics."""
    network = model.feature_extractor.feature_extractor
    load_weights(network, BACKBONE, lambda: None)
    model = model.to(data.device).eval()
    mean, deviation = (
        torch.tensor(network.pretrained_cfg[name], device=data.device).view(1, 3, 1, 1) for name in ("mean", "std")
    )

    @torch.inference_mode()
    def fit() -> None:
        torch.manual_seed(0)
        model.train()
        for rows in data.batches():
            model((data.pictures(rows) - mean) / deviation)
        finish()
        model.eval()

    @torch.inference_mode()
    def score(pictures: Tensor) -> tuple[Tensor, Tensor]:
        outcome = model((pictures - mean) / deviation)
        return outcome.pred_score.flatten(), outcome.anomaly_map[:, 0]

    return Side(model, fit, score, lambda n: data.pictures(range(n)))


# CS-Flow and DRAEM: steps


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], clip: float | None = None):
    """A call that takes STEPS training steps."""

    def fit() -> None:
        model.train()
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
        model.eval()

    return fit


def csflow_adlib(data: Data) -> Side:
    config = csflow.Config(image_size=data.side, hidden=data.options.hidden)
    with seeded(0, "flow"):
        detector = csflow.CSFlow(config, backbone=SimpleNamespace(channels=(WIDTH,) * 3)).to(data.device)
    for name, parameter in detector.named_parameters():
        if ".gamma." in name:
            nn.init.constant_(parameter, GAMMA)
    batch = data.features(range(AT_ONCE))
    [(optimizer, _)] = detector.optimizers(1, 1)
    fit = _steps(detector, optimizer, lambda: detector.loss(batch, None)["total"], detector.clip_norm)

    @torch.inference_mode()
    def score(features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return detector.score(features)[:2]

    return Side(detector.eval(), fit, score, lambda n: data.features(range(n)))


def csflow_anomalib(data: Data) -> Side:
    """Its flow, loss, optimiser, score and map, without its backbone."""
    theirs, config = anomalib(), csflow.Config(hidden=data.options.hidden)
    shape = (3, data.side, data.side)
    with seeded(0, "flow"):
        model = theirs.CrossScaleFlow(shape, config.blocks, config.clamp, config.hidden).to(data.device)
    for name, parameter in model.named_parameters():
        if ".gamma" in name:
            nn.init.constant_(parameter, GAMMA)
    batch, criterion, draw = data.features(range(AT_ONCE)), theirs.CsFlowLoss(), theirs.AnomalyMapGenerator(shape)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, eps=1e-4, weight_decay=1e-5, betas=(0.5, 0.9))
    fit = _steps(model, optimizer, lambda: criterion(*model(batch)), clip=1.0)

    @torch.inference_mode()
    def score(features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        z, _ = model(features)
        return theirs.CsFlowModel._compute_anomaly_scores(z), draw(z)[:, 0]

    return Side(model.eval(), fit, score, lambda n: data.features(range(n)))


def draem_adlib(data: Data) -> Side:
    width = data.options.draem_width
    config = draem.Config(image_size=data.side, reconstruction_width=width, segmentation_width=width // 2)
    with seeded(0, "draem"):
        detector = draem.Draem(config).to(data.device, memory_format=torch.channels_last)  # as its runs lay it out
    damaged, target, mask = data.damaged
    [(optimizer, _)] = detector.optimizers(1, 1)
    fit = _steps(detector, optimizer, lambda: detector.terms(*detector(damaged), target, mask)["total"])

    @torch.inference_mode()
    def score(pictures: Tensor) -> tuple[Tensor, Tensor]:
        return detector.score(pictures)[:2]

    return Side(detector.eval(), fit, score, lambda n: data.pictures(range(n)))


def draem_anomalib(data: Data) -> Side:
    theirs, width = anomalib(), data.options.draem_width
    with torch.device("meta"):
        model = theirs.DraemModel()  # always of full width, so its networks are replaced
    with seeded(0, "draem"):
        model.reconstructive_subnetwork = theirs.ReconstructiveSubNetwork(base_width=width)
        model.discriminative_subnetwork = theirs.DiscriminativeSubNetwork(6, 2, base_width=width // 2)
    model = model.to(data.device)
    damaged, target, mask = data.damaged
    criterion = theirs.DraemLoss()

    def loss() -> Tensor:
        repaired, logits = model(damaged)
        return criterion(target, repaired, mask, logits)

    fit = _steps(model, torch.optim.Adam(model.parameters(), lr=1e-4), loss)

    @torch.inference_mode()
    def score(pictures: Tensor) -> tuple[Tensor, Tensor]:
        outcome = model(pictures)
        return outcome.pred_score, outcome.anomaly_map

    return Side(model.eval(), fit, score, lambda n: data.pictures(range(n)))


SYSTEMS = {
    "PaDiM": {"adlib": padim_adlib, "anomalib": padim_anomalib},
    "PatchCore": {"adlib": patchcore_adlib, "anomalib": patchcore_anomalib},
    "CS-Flow": {"adlib": csflow_adlib, "anomalib": csflow_anomalib},
    "DRAEM": {"adlib": draem_adlib, "anomalib": draem_anomalib},
}


# The same weights on both sides


def copy_in_order(pairs) -> None:
    """Tensors of each (source, target) module, whose names differ and whose order does not; other shapes are errors."""
    for source, target in pairs:
        names = target.state_dict()
        target.load_state_dict(dict(zip(names, source.state_dict().values(), strict=True)))


def copy_flow(ours: nn.Module, theirs: nn.Module) -> None:
    """Channel orders, convolutions and gammas of adlib's flow into anomalib's CrossScaleFlow."""
    classes = anomalib()
    kinds = (classes.ParallelPermute, classes.ParallelGlowCouplingLayer)
    layers = [module for module in theirs.modules() if isinstance(module, kinds)]
    for source, target in zip(ours, layers, strict=True):
        if isinstance(target, classes.ParallelPermute):
            target.perm = [getattr(source, f"order{i}") for i in range(source.scales)]
            target.perm_inv = [order.argsort() for order in target.perm]
            continue
        for mine, other in ((source.s1, target.cross_convolution1), (source.s2, target.cross_convolution2)):
            copy_in_order((mine.hidden[i], getattr(other, f"conv_scale{i}_0")) for i in range(3))
            copy_in_order((mine.out[i], getattr(other, f"conv_scale{i}_1")) for i in range(3))
            copy_in_order(zip(mine.up, (other.up_conv10, other.up_conv21), strict=True))
            copy_in_order(zip(mine.down, (other.down_conv01, other.down_conv12), strict=True))
            with torch.no_grad():
                for gamma, target_gamma in zip(mine.gamma, (other.gamma0, other.gamma1, other.gamma2), strict=True):
                    target_gamma.fill_(gamma)


def copy_draem(ours: draem.Draem, theirs: nn.Module) -> None:
    """Both networks of adlib's DRAEM, batch statistics too, into anomalib's."""
    reconstructive, discriminative = theirs.reconstructive_subnetwork, theirs.discriminative_subnetwork
    parts = (
        (ours.reconstructive, reconstructive.encoder, reconstructive.decoder, ("1", "2", "3", "4")),
        (
            ours.discriminative,
            discriminative.encoder_segment,
            discriminative.decoder_segment,
            ("_b", "1", "2", "3", "4"),
        ),
    )
    for network, encoder, decoder, stages in parts:
        down = [*network.down, network.bottom]
        copy_in_order((block, getattr(encoder, f"block{i}")) for i, block in enumerate(down, start=1))
        copy_in_order((up, getattr(decoder, f"up{stage}")) for up, stage in zip(network.ups, stages, strict=True))
        copy_in_order((join, getattr(decoder, f"db{stage}")) for join, stage in zip(network.joins, stages, strict=True))
        copy_in_order([(network.head, decoder.fin_out[0])])
