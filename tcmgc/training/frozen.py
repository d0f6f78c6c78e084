"""Training of temporal encoder and head on the features of frozen towers.

A screening of many settings in minutes. It differs from the paper, which trains the towers. Every
caption and every video passes through the towers once; the towers' features, before the temporal
encoder, are stored. Objective, optimiser, schedule, order of pairs and metrics are those of
training, and with ``towers.freeze`` at ``all`` so is the result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from tcmgc import config, model, storage
from tcmgc.retrieval.evaluation import similarity
from tcmgc.retrieval.metrics import Metrics, retrieval_metrics
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training import optim, order
from tcmgc.training.batch import FeatureBatch
from tcmgc.training.step import Whole, backward


@dataclass(frozen=True)
class SplitFeatures:
    """The towers' features of a split."""

    text: TextFeatures
    """Every caption, in the order of the split's pairs."""
    frames: Float[Tensor, "videos frames dim"]
    """CLIP's own frame features; padded frames are an encoded black-level one."""
    frame_mask: Bool[Tensor, "videos frames"]
    owner: Int[Tensor, "texts"]
    """The video of each caption."""


Features = dict[str, SplitFeatures]


@torch.inference_mode()
def extract(
    retriever: model.Retriever,
    read: Callable[[int, int], tuple[Tensor, Tensor]],
    captions: Sequence[Sequence[str]],
    tokenise: Callable[[Sequence[str]], Tensor],
    *,
    batch_size: int = 64,
) -> SplitFeatures:
    """Compute the towers' features of a split.

    Args:
        retriever: Its towers are used, on their device.
        read: Returns pixels (videos, frames, 3, size, size) and frame mask of a range of videos.
        captions: Of every video.
        tokenise: Captions to token ids.
        batch_size: Videos, and captions, at a time.

    Raises:
        ValueError: the towers also return patches, which are not stored.
    """
    retriever.eval()
    device = next(retriever.parameters()).device
    frames, masks = [], []
    for start in range(0, len(captions), batch_size):
        pixels, mask = read(start, min(start + batch_size, len(captions)))
        with retriever.arithmetic(device):
            found, left, patches = retriever.visual(
                pixels.to(device), mask.to(device), encode_padding=True
            )
        if patches is not None:
            raise ValueError(
                "tokens: a sweep over frozen towers keeps frames and no patches; sweep without --frozen"
            )
        frames.append(found.float().cpu())
        masks.append(left.cpu())
    texts = [caption for one in captions for caption in one]
    parts = [
        retriever.encode_text(tokenise(texts[start : start + batch_size]).to(device)).to("cpu")
        for start in range(0, len(texts), batch_size)
    ]
    owner = torch.repeat_interleave(torch.tensor([len(one) for one in captions]))
    return SplitFeatures(TextFeatures.cat(parts), torch.cat(frames), torch.cat(masks), owner)


def save(features: Features, path: Path | str) -> None:
    """Write the features of all splits as one safetensors file, atomically."""
    tensors: dict[str, Tensor] = {}
    for name, split in features.items():
        tensors |= {f"{name}.text.{key}": value for key, value in split.text.tensors.items()}
        tensors |= {
            f"{name}.frames": split.frames,
            f"{name}.frame_mask": split.frame_mask,
            f"{name}.owner": split.owner,
        }
    path = Path(path)
    partial = path.with_suffix(".partial")
    with storage.usual_rights(partial):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.rename(path)


def load(path: Path | str) -> Features:
    """Read a file written by :func:`save`.

    Raises:
        ValueError: not such a file.
    """
    try:
        tensors = load_file(path)
        names = dict.fromkeys(name.split(".")[0] for name in tensors)
        return {
            name: SplitFeatures(
                TextFeatures(
                    **{
                        key: tensors[f"{name}.text.{key}"]
                        for key in ("sentence", "words", "word_mask")
                    }
                ),
                tensors[f"{name}.frames"],
                tensors[f"{name}.frame_mask"],
                tensors[f"{name}.owner"],
            )
            for name in names
        }
    except (safetensors.SafetensorError, OSError, KeyError) as error:
        raise ValueError(
            f"{path} holds no features ({error}); delete it, and they are made anew"
        ) from error


class FrozenTrainer:
    """A training run on stored features.

    Args:
        settings: ``towers.freeze`` must be ``all``.
        features: With the splits ``train`` and ``val``.
        device: Device for the computation.
        pairs: Training pairs per epoch, different ones each time; 0 uses all.

    Raises:
        ValueError: settings that train the towers, or fewer pairs than a batch.
    """

    def __init__(
        self,
        settings: config.Config,
        features: Features,
        device: torch.device | str = "cpu",
        *,
        pairs: int = 0,
    ) -> None:
        if settings.towers.freeze != "all":
            raise ValueError(
                f"towers.freeze is {settings.towers.freeze!r}; features of towers stand only for "
                "towers that are not trained: set it to 'all'"
            )
        self.settings, self.device = settings, torch.device(device)
        self.train, self.val = features["train"], features["val"]
        self.model = model.build(_without_weights(settings)).to(device)
        self.optimiser: torch.optim.Optimizer | None = None
        """None if nothing is learnt, for example with mean scores of plain frames."""
        if any(parameter.requires_grad for parameter in self.model.parameters()):
            self.optimiser = model.build_optimiser(settings, self.model)
        self.objective = model.build_objective(settings)
        count = min(pairs or len(self.train.owner), len(self.train.owner))
        self.steps = order.steps_per_epoch(count, settings.train.batch_size)
        self.done = 0

    def epoch(self) -> dict[str, float]:
        """Train one epoch; return the mean of each loss term, or nothing if nothing is learnt.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        train = self.settings.train
        if self.optimiser is None:
            self.done += self.steps
            return {}
        self.model.train()
        pairs = order.of_epoch(
            self.train.owner.numpy(),
            train.batch_size,
            train.seed,
            self.done // self.steps,
            separate=train.separate_captions,
        )
        rows = [
            self._step(self.optimiser, order.batch_of(pairs, n, train.batch_size))
            for n in range(self.steps)
        ]
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _step(self, optimiser: torch.optim.Optimizer, pairs: np.ndarray) -> dict[str, float]:
        chosen, train = torch.from_numpy(pairs), self.settings.train
        total = self.steps * train.epochs
        optim.set_rate(optimiser, optim.rate(self.done, total, self.settings.optim))
        optimiser.zero_grad(set_to_none=True)
        owner = self.train.owner[chosen]
        text = self.train.text[chosen].to(self.device)
        batch = FeatureBatch(text, self._frames(self.train, owner))
        terms = backward(
            self.model,
            batch,
            len(pairs),
            self.objective,
            whole=Whole(videos=owner.to(self.device)),
            seed=train.seed * 2**32 + self.done,
        )
        optim.clip_gradients(self.model, self.settings.optim.clip_norm)
        optimiser.step()
        self.model.scale.clamp()
        self.done += 1
        values = {name: term.item() for name, term in terms.items()}
        if not np.isfinite(values["loss"]):
            raise FloatingPointError(
                f"the loss is {values['loss']} at step {self.done}; lower optim.lr_new"
            )
        return values

    @torch.inference_mode()
    def evaluate(self) -> Metrics:
        """Retrieval metrics of the validation split."""
        self.model.eval()
        seen = self._frames(self.val, torch.arange(len(self.val.frames)))
        video = self.model.encode_frames(seen.frames, seen.frame_mask)
        scores = similarity(self.model, self.val.text.to(self.device), video)
        return retrieval_metrics(scores.cpu().numpy(), self.val.owner.numpy())

    def _frames(self, split: SplitFeatures, videos: Tensor) -> VideoFeatures:
        """Frame features as the towers would return them, before the temporal encoder."""
        mask = split.frame_mask[videos].to(self.device)
        frames = split.frames[videos].to(self.device)
        if not self.model.encode_padding:
            frames = frames * mask[..., None]
        return VideoFeatures(frames, frames, mask)


def _without_weights(settings: config.Config) -> config.Config:
    """Settings without the towers' weights, unless the temporal encoder is initialised from them."""
    if settings.temporal.starts_from_text or settings.head.starts_from_text:
        return settings
    return config.replace(settings, {"towers.pretrained": None})
