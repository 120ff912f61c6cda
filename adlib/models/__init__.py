"""The registry: one file, one system; a system's name is its file's name."""

import importlib

from adlib.common.errors import check_names

# name -> dotted path of the Detector; its Config is the class attribute of that name
SYSTEMS = {
    "improved_mae": "adlib.models.improved_mae.ImprovedMAE",
    "mmaerec": "adlib.models.mmaerec.MMAERec",
    "mkd": "adlib.models.mkd.MKD",
    "unet_autoencoder": "adlib.models.unet_autoencoder.UNetAutoencoder",
    "dagan": "adlib.models.dagan.DAGAN",
    "simplenet": "adlib.models.simplenet.SimpleNet",
    "draem": "adlib.models.draem.Draem",
    "validflow": "adlib.models.validflow.ValidFlow",
    "csflow": "adlib.models.csflow.CSFlow",
    "differnet": "adlib.models.differnet.DifferNet",
    "mahalanobis": "adlib.models.mahalanobis.Mahalanobis",
    "padim": "adlib.models.padim.PaDiM",
    "patchcore": "adlib.models.patchcore.PatchCore",
    "spade": "adlib.models.spade.SPADE",
    "riad": "adlib.models.riad.RIAD",
    "ae_ssim": "adlib.models.ae_ssim.AESSIM",
    "cutpaste": "adlib.models.cutpaste.CutPaste",
    "reverse_distillation": "adlib.models.reverse_distillation.ReverseDistillation",
    "ganomaly": "adlib.models.ganomaly.GANomaly",
    "nearest_neighbour": "adlib.models.nearest_neighbour.NearestNeighbour",
}


def get(name: str) -> tuple[type, type]:
    """(Detector class, Config class) of a system. Raises UserError with the valid names."""
    check_names("method", [name], SYSTEMS)
    module, _, class_name = SYSTEMS[name].rpartition(".")
    detector = getattr(importlib.import_module(module), class_name)
    return detector, detector.Config
