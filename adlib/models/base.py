"""The contract that every system obeys, learned or statistical, so that runs, notebooks and inference never ask which
one it is.

A system's file defines a `Config` (its defaults are the paper's setting) and a `Detector`. Data flow:

    images --embed--> embeddings --loss--> parameters, --fit--> buffers    (training, normal images only)
    images --embed--> embeddings --score-> Scores                          (test; higher = more anomalous)

`embed` is the frozen part: it runs once per image and is cached. Everything that learns comes after it. A system may
have `loss` (or `step`), `fit`, or both: `fit` collects statistics with what was learnt so far.

The constructor only builds: it draws starting weights from torch's global generator and reads no other state. It also
runs on the meta device, where a batch of thousands of settings is checked without computing anything.
"""

from importlib.metadata import version
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from adlib.backbones import Features, Frozen, Network, extractor, networks, state_fingerprint
from adlib.common import definitions
from adlib.models.config import Config

# of the code of an embedding: weights are known by their content, however they came
OUTSIDE = ("adlib.common", "adlib.models.config", "adlib.backbones.load_weights", "adlib.backbones._planned_once")


class Scores(NamedTuple):
    """What a system says of a batch; higher = more anomalous. Logits rather than saturating probabilities."""

    image: Tensor  # [B]
    map: Tensor | None  # [B,h,w] on any grid; None where the system does not localise
    cells: Tensor | None = None  # [B,h,w], what `pool` makes the image score of; None: the map


class Detector(nn.Module):
    """Base of all systems. A subclass sets `Config` and overrides loss (or step), fit, score, and embed if need be."""

    Config: ClassVar[type[Config]] = Config
    replacement: ClassVar[bool] = False  # True: an epoch is N draws with replacement, not a permutation
    drop_last: ClassVar[bool] = False  # True: an epoch ends with the last whole batch
    clip_norm: ClassVar[float | None] = None  # largest norm of the gradient of a step; None = not clipped
    channels_last: ClassVar[bool] = False  # True: on the CPU too; on CUDA every system is laid out so
    embedding_dtype: ClassVar[str] = "float32"  # of cached embeddings on disk; "float16" halves them
    # the config fields, besides the geometry's, that an own `embed` depends on, if it reads nothing else but frozen
    # networks; None: it may read anything
    embedding_fields: ClassVar[tuple[str, ...] | None] = None
    alone: ClassVar[str | None] = None  # why one model for several categories is not what the paper is about
    published_mask_rule: ClassVar[str | None] = None  # where the authors' masks differ: measured beside ours

    def __init__(self, config: Config):
        super().__init__()
        self.config = config

    # What the rest of the program asks

    @property
    def networks(self) -> list[Network]:
        """All frozen and all starting weights, whatever attributes hold them: part of a run's identity."""
        return networks(self)

    @property
    def trains(self) -> bool:
        """Whether there is something to learn by steps: `loss` or `step` is overridden."""
        return type(self).loss is not Detector.loss or type(self).step is not Detector.step

    @property
    def fits(self) -> bool:
        """Whether there are statistics to collect: `fit` is overridden."""
        return type(self).fit is not Detector.fit

    @property
    def embedding_key(self) -> dict | None:
        """What an embedding depends on besides the images; None where `embed` gives the images themselves.

        Of the default `embed`: the frozen backbone and the code that runs it. Of an own one: all frozen networks, the
        code of the whole class, and the config fields that the class declares in `embedding_fields`; where it declares
        none, the whole config and all other tensors, so that each setting and seed has embeddings of its own.
        """
        own = type(self).embed is not Detector.embed
        if not own and not isinstance(getattr(self, "backbone", None), Frozen):
            return None
        key = {"dtype": self.embedding_dtype, "versions": [torch.__version__, version("timm")]}
        if not own:
            code = definitions.fingerprint(Features, extractor, outside=OUTSIDE)
            return key | {"networks": [self.backbone.network.fingerprint], "code": code}
        key |= {"networks": [network.fingerprint for network in self.networks]}
        key |= {"code": definitions.fingerprint(type(self), outside=OUTSIDE)}
        if self.embedding_fields is not None:
            return key | {"fields": {name: self.config.to_dict()[name] for name in self.embedding_fields}}
        frozen = tuple(f"{name}." for name, module in self.named_modules() if isinstance(module, Frozen))
        others = {name: x for name, x in self.state_dict().items() if not name.startswith(frozen)}
        return key | {"fields": self.config.to_dict(), "state": state_fingerprint(others)}

    @property
    def protocol(self) -> dict:
        """Protocol fields that only the system knows: how the image score comes about, what smooths the map."""
        return {"image_score": "max", "smoothing": "none"}

    def doubt(self, history) -> str | None:
        """A sentence where training taught nothing, by its history (a DataFrame as history.csv); None: no doubt.

        It stands beside the run's numbers wherever they are printed, so it names no seed and no number.
        """
        return None

    # What a system defines, in the order in which it is called

    @classmethod
    def texture_bank(cls, config: Config, dataset: str, categories: tuple[str, ...]):
        """Foreign pictures that training draws on; None where it needs none.

        What is returned has name, note, fingerprint (part of a run's identity) and a length. Raises UserError where
        nothing usable is found.
        """
        return None

    def embed(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """[B,3,H,W] in 0..1 -> what the frozen part makes of them, [B,...] or a tuple of such; in eval mode.

        Default: the maps of a frozen `self.backbone` where there is one, else the images themselves.
        """
        backbone = getattr(self, "backbone", None)
        return backbone(images) if isinstance(backbone, Frozen) else images

    def equip(self, texture_bank, device: str) -> None:
        """Called with that bank before training, also when it is resumed; never for inference."""

    def prepare(self, embeddings, generator: torch.Generator) -> None:
        """Called before training with all training embeddings (`adlib.embeddings.Embeddings`), for data-dependent
        starts; also when training is resumed, before the stored state comes back.
        """

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        """[(optimizer, scheduler or None), ...]; schedulers are stepped after every optimiser step."""
        return [(adam((p for p in self.parameters() if p.requires_grad), lr=1e-4), None)]

    def loss(self, batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Embeddings of a batch of normal images -> named scalar terms; "total" is minimised, the others are logged.

        Random numbers come from the generator (on the embeddings' device) and nowhere else: checkpoints keep it.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def step(self, batch, optimizers: list[tuple], generator: torch.Generator) -> dict[str, Tensor]:
        """One step of all optimisers on one loss. Systems with adversaries override this one method of the loop."""
        for optimizer, _ in optimizers:
            optimizer.zero_grad(set_to_none=True)
        terms = self.loss(batch, generator)
        terms["total"].backward()
        self.clip()
        for optimizer, _ in optimizers:
            optimizer.step()
        return terms

    def clip(self) -> None:
        """Scale the gradients so that their joint norm is at most `clip_norm`; for an own `step`, too."""
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_([p for p in self.parameters() if p.grad is not None], self.clip_norm)

    def fit(self, embeddings, generator: torch.Generator) -> None:
        """Collect statistics of all training embeddings into buffers, of any shape (a shape may depend on the data).

        Called after the last step and before every scoring, in eval mode, without gradients, and with a fresh stream of
        random numbers each time. `loss` must not read what it writes, and it writes no parameter: looking at the test
        set would change training. Batches are asked for on the generator's device:
        `embeddings.take(rows, generator.device)`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no fit")

    def pool(self, cells: Tensor, valid: Tensor | None = None) -> Tensor:
        """The cells (or map) of a batch [B,h,w] -> its image scores [B]: the largest of each image.

        valid: bool [B,h,w], without the padding of pictures; None: all count. A system whose `score` pools in another
        way overrides it, so that `pool(cells)` is its image score.
        """
        if valid is not None:
            cells = cells.masked_fill(~valid, -torch.inf)
        return cells.flatten(1).amax(1)

    def score(self, embeddings) -> Scores:
        """Embeddings of a batch -> Scores. Called in eval mode without gradients."""
        raise NotImplementedError(f"{type(self).__name__} defines no score")


def mean_pool(cells: Tensor, valid: Tensor | None = None) -> Tensor:
    """For `pool`: the mean of each image's cells [B,h,w], of the valid ones [B,h,w] -> [B]."""
    if valid is None:
        return cells.flatten(1).mean(1)
    return cells.where(valid, 0).flatten(1).sum(1) / valid.flatten(1).sum(1)


def adam(parameters, kind: type[torch.optim.Optimizer] = torch.optim.Adam, **options) -> torch.optim.Optimizer:
    """Adam, or AdamW by `kind`; fused into one kernel where the parameters are on a GPU, the plain loop on the CPU."""
    parameters = list(parameters)
    if not parameters:
        raise TypeError("there is nothing to train: the system has a loss and no parameter that needs a gradient")
    return kind(parameters, fused=parameters[0].is_cuda or None, **options)
