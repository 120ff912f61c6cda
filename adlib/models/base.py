"""The contract that every system obeys, learned or statistical, so that runs, notebooks and inference never ask which
one it is.

A system's file defines a `Config` (its defaults are the paper's setting) and a `Detector`. Data flow:

    images --embed--> embeddings --loss / fit--> parameters      (training, normal images only)
    images --embed--> embeddings --score-------> Scores          (test; higher = more anomalous)

`embed` is the frozen part: it runs once per image and is cached. Everything that learns comes after it.
"""

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from adlib.settings import UserError


def setting(default: Any, *, low: float | None = None, high: float | None = None, choices: tuple | None = None):
    """A configuration field with its valid range (inclusive) or its valid values, checked when the Config is made."""
    return field(default=default, metadata={"low": low, "high": high, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Config:
    """What all systems share. A system's own Config overrides the defaults by its paper's values."""

    image_size: int = setting(256, low=8)  # pixels per side of the network's square input
    resize_mode: str = setting("squash", choices=("squash", "short_crop"))  # specs/common, geometry
    resize: int | None = setting(None, low=8)  # pixels of the shorter side before the centre crop (short_crop only)
    resample: str = setting("antialias", choices=("antialias", "plain"))  # plain: bilinear without a low-pass, as cv2
    epochs: int = setting(100, low=0)  # passes over the normal training images
    batch_size: int = setting(8, low=1)  # images
    eval_every: int = setting(0, low=0)  # epochs between looks at the test set, for the oracle row only; 0 = never
    holdback: float = setting(0.1, low=0.0, high=0.5)  # share of the normal training images kept for the threshold
    mask_rule: str = setting("nearest", choices=("nearest", "half", "any", "exact_one"))
    metric_size: int | None = setting(None, low=8)  # pixels per side of the evaluation grid; None = image_size
    precision: str = setting("float32", choices=("float32", "bfloat16"))  # of autocast on CUDA; the CPU uses float32

    def __post_init__(self):
        hints = typing.get_type_hints(type(self))
        for f in dataclasses.fields(self):
            value = _coerce(f.name, getattr(self, f.name), hints[f.name])
            _check_range(f.name, value, f.metadata)
            object.__setattr__(self, f.name, value)
        if self.resize is not None and self.resize < self.image_size:
            raise UserError(f"resize {self.resize} is smaller than image_size {self.image_size}; use at least that")
        if self.resize is not None and self.resize_mode == "squash":
            raise UserError(
                f"resize {self.resize} has no meaning with resize_mode 'squash'; use 'short_crop' or drop it"
            )

    @classmethod
    def from_dict(cls, values: dict | None) -> "Config":
        """A Config from a batch file's mapping; an unknown name is an error that lists the valid ones."""
        values = dict(values or {})
        valid = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in valid:
                near = difflib.get_close_matches(str(name), valid, 1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise UserError(f"unknown config field {name!r}; {hint}valid: {', '.join(valid)}")
        return cls(**values)

    def to_dict(self) -> dict:
        """Plain JSON values of all fields."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def changed(self) -> dict:
        """The fields whose values are not the paper's: {name: (paper, here)}."""
        paper = type(self)()
        return {k: (getattr(paper, k), v) for k, v in vars(self).items() if v != getattr(paper, k)}


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """The value as the annotated type; YAML's lists become tuples and integers become floats. Raises UserError."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        origin = typing.get_origin(option) or option
        if option is type(None) and value is None:
            return None
        if origin is tuple and isinstance(value, list | tuple):
            inner = typing.get_args(option)[0]
            return tuple(_coerce(name, v, inner) for v in value)
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin in (int, str, bool) and type(value) is origin:
            return value
    readable = " or ".join(getattr(o, "__name__", str(o)) for o in options).replace("NoneType", "null")
    raise UserError(f"config field {name!r} is {value!r}, but must be {readable}")


def _check_range(name: str, value: Any, rule) -> None:
    for v in value if isinstance(value, tuple) else (value,):
        if v is None:
            continue
        if rule.get("choices") and v not in rule["choices"]:
            raise UserError(f"config field {name!r} is {v!r}; valid: {', '.join(map(repr, rule['choices']))}")
        low, high = rule.get("low"), rule.get("high")
        # `not >=` instead of `<`: NaN fails too
        if (low is not None and not v >= low) or (high is not None and not v <= high):
            top = "" if high is None else f" and at most {high}"
            raise UserError(f"config field {name!r} is {v!r}; it must be at least {low}{top}")


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
        """Called once before training with all training embeddings (`adlib.backbones.Embeddings`), for data-dependent
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
