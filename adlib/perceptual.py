"""LPIPS, the perceptual distance of Zhang et al. 2018 (The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric): how far two pictures are apart in the features of a frozen network.

The package `lpips` has the formula and the learned weights of the layers; the network itself (AlexNet or SqueezeNet, as
torchvision trained them) comes from where backbones come from.
"""

import warnings

from torch import Tensor, nn

from adlib.backbones import Frozen, load_weights
from adlib.common.errors import UserError
from adlib.common.seeds import seeded

NETWORKS = {"alex": "alexnet", "squeeze": "squeezenet1_1"}  # the package's names -> torchvision's


class Perceptual(Frozen):
    """LPIPS version 0.1: two batches of images [B,3,H,W] in 0..1 -> [B], 0 for equal ones; H, W >= 64.

    net: "alex" or "squeeze". Features are unit-normalised over channels, their squared difference is weighted by
    channel, averaged over places and summed over layers; eq. (13) of paper 01 has neither norm nor weights and averages
    the layers. Always in eval mode, for the package's layers hold dropout. Raises UserError where weights are missing.
    """

    def __init__(self, net: str):
        super().__init__()
        import lpips  # heavy, with all of torchvision's networks
        import torchvision

        name = NETWORKS[net]
        with seeded(0, f"random {name}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package still says `pretrained` to torchvision
            self.distance = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
            model = getattr(torchvision.models, name)(weights=None)
        file = _filled(model, name, lambda: getattr(torchvision.models, name)(weights="DEFAULT"))
        _hand_over(model.features, self.distance.net)
        self.freeze(f"lpips {net}", file)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.distance(x, y, normalize=True).flatten()


def _filled(model: nn.Module, name: str, donor) -> str:
    try:
        return load_weights(model, name, donor)
    except UserError as error:
        if " neither in " not in str(error):  # a broken file, say
            raise
        raise UserError(
            f"LPIPS needs the ImageNet weights of {name}, which are not to be had here; put torchvision's file "
            f"{name}*.pth into ADLIB_WEIGHTS, or set lpips to another of alex, squeeze and off"
        ) from error


def _hand_over(features: nn.Sequential, slices: nn.Module) -> None:
    """The package cuts the network into slices; within them the layers keep their numbers in torchvision's network."""
    known = features.state_dict()
    state = {key: known[key.partition(".")[2]] for key in slices.state_dict()}
    slices.load_state_dict(state)
