"""The contract that every system obeys, learned or statistical, so that runs, notebooks and inference never ask which
one it is.

A system's file defines a `Config` (its defaults are the paper's setting) and a `Detector`. Data flow:

    images --embed--> embeddings --loss / fit--> parameters      (training, normal images only)
    images --embed--> embeddings --score-------> Scores          (test; higher = more anomalous)

`embed` is the frozen part: it runs once per image and is cached. Everything that learns comes after it.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from adlib.models.config import Config


class Scores(NamedTuple):
    """What a system says of a batch; higher = more anomalous. Logits rather than saturating probabilities."""

    image: Tensor  # [B]
    map: Tensor | None  # [B,h,w] on any grid; None where the system does not localise


class Detector(nn.Module):
    """Base of all systems. A subclass sets `Config` and overrides embed, loss (or fit) and score."""

    Config: ClassVar[type[Config]] = Config
    frozen: ClassVar[tuple[str, ...]] = ("backbone",)  # modules that training never changes: named by fingerprint
    replacement: ClassVar[bool] = False  # True: an epoch is N draws with replacement, not a permutation
    published_mask_rule: ClassVar[str | None] = None  # where the authors' masks differ: measured beside ours

    def __init__(self, config: Config):
        super().__init__()
        self.config = config

    @property
    def embedding_key(self) -> dict | None:
        """What the embedding depends on besides the images (backbone, layers, weights); None where embed is the
        identity.
        """
        return None

    @property
    def protocol(self) -> dict:
        """Protocol fields that only the system knows: how the image score comes about, what smooths the map."""
        return {"image_score": "max", "smoothing": "none"}

    def embed(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """[B,3,H,W] in 0..1 -> what the frozen part makes of them. Default: the images themselves."""
        return images

    @classmethod
    def material(cls, config: Config, dataset: str, categories: tuple[str, ...]):
        """Pictures besides the training images that training draws on (a texture source); None where it needs none.

        What is returned has name, note, fingerprint (part of a run's identity) and a length. Raises UserError where
        nothing usable is found.
        """
        return None

    def equip(self, material, device: str) -> None:
        """Called with that material before training, also when it is resumed; never for inference."""

    def prepare(self, embeddings, generator: torch.Generator) -> None:
        """Called once before training with all training embeddings (`adlib.embeddings.Embeddings`), for data-dependent
        starts.
        """

    def loss(self, batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Embeddings of a batch of normal images -> named scalar terms; "total" is minimised, the others are logged.

        Random numbers come from the generator (on the embeddings' device) and nowhere else: checkpoints keep it.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither loss nor fit")

    def fit(self, embeddings, generator: torch.Generator) -> None:
        """Instead of loss: systems that only collect statistics."""
        raise NotImplementedError

    @property
    def learns(self) -> bool:
        """True for systems that are trained by `loss`, False for those that collect statistics by `fit`."""
        return type(self).fit is Detector.fit

    def optimizers(self, steps_per_epoch: int) -> list[tuple]:
        """[(optimizer, scheduler or None), ...]; schedulers are stepped after every optimiser step."""
        return [(torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=1e-4), None)]

    def step(self, batch, optimizers: list[tuple], generator: torch.Generator) -> dict[str, Tensor]:
        """One step of all optimisers on one loss. Systems with adversaries override this one method of the loop."""
        for optimizer, _ in optimizers:
            optimizer.zero_grad(set_to_none=True)
        terms = self.loss(batch, generator)
        terms["total"].backward()
        for optimizer, _ in optimizers:
            optimizer.step()
        return terms

    def score(self, embeddings) -> Scores:
        """Embeddings of a batch -> Scores. Called in eval mode without gradients."""
        raise NotImplementedError
