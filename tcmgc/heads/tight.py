"""CLIP4Clip's tightTransf: a cross encoder over the sentence and the frames of every pair."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tcmgc.config import TightHead
from tcmgc.heads.base import Head, RawVideos, Sizes, check_frames, check_video
from tcmgc.heads.parts.compile import Run, eager
from tcmgc.towers import draws
from tcmgc.towers.activation import QuickGELU
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.towers.temporal.transformer import Block, start_from


class Tight(Head):
    """A transformer over ``[sentence; frames]`` of a pair. The score is a logit, not a cosine.

    Position embeddings are added to the tokens, with dropout in training. After the blocks, the
    sentence's token passes a layer norm, a linear layer with QuickGELU and a linear layer to one number.
    Frames outside the mask are ignored. The authors' loss is over each GPU's own pairs; here
    it is over the whole batch, as for every other method.

    Args:
        options: layers, attention heads, dropout, initialisation of the weights.
        sizes: width of the joint space and frames of a video.
    """

    from_records = False

    def __init__(self, options: TightHead, sizes: Sizes) -> None:
        super().__init__(sizes)
        dim, self.frames = sizes.dim, sizes.frames
        self.dropout = options.dropout
        self.positions = nn.Embedding(1 + sizes.frames, dim)
        self.blocks = nn.ModuleList(
            Block(dim, options.heads, options.norm_eps) for _ in range(options.layers)
        )
        self.norm = nn.LayerNorm(dim, options.norm_eps)
        self.dense = nn.Linear(dim, dim)
        self.activation = QuickGELU()
        self.out = nn.Linear(dim, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=0.02)
            if isinstance(layer, nn.Linear) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def initialise_from(self, blocks: nn.ModuleList, positions: Float[Tensor, "words dim"]) -> None:
        """Initialise from a text tower's first blocks and position embeddings, as CLIP4Clip does.

        Raises:
            ValueError: the tower is narrower, shorter or shallower than this head.
        """
        start_from(blocks, positions, self.blocks, self.positions, "head.initialise_from_text")

    @property
    def draws(self) -> bool:
        """Whether training draws random numbers."""
        return self.dropout > 0

    def record(self, video: VideoFeatures) -> RawVideos:
        """The frames: nothing can be precomputed."""
        check_video(video, self.dim)
        check_frames(video, self.frames)
        return RawVideos(video.encoded, video.frame_mask)

    def tile(
        self, texts: TextFeatures, videos: RawVideos, run: Run = eager
    ) -> Float[Tensor, "1 texts videos"]:
        """The logit of every pair of a tile."""
        count = (len(texts), len(videos))
        sentence = texts.sentence + self.positions.weight[0]
        frames = videos.encoded + self.positions.weight[1:]
        x = torch.cat(
            [
                sentence[:, None, None].expand(-1, count[1], -1, -1),
                frames[None].expand(count[0], -1, -1, -1),
            ],
            2,
        )
        if self.training and self.draws:
            if texts.seeds is None:
                raise ValueError(
                    "dropout is active in training and needs the texts' seeds; got none"
                )
            x = draws.dropout(x, self.dropout, texts.seeds)
        mask = F.pad(videos.frame_mask, (1, 0), value=True).repeat(count[0], 1)
        found = run(self._logits, x.flatten(0, 1), mask)
        return found.view(1, *count)

    def _logits(
        self, x: Float[Tensor, "pairs tokens dim"], mask: Bool[Tensor, "pairs tokens"]
    ) -> Float[Tensor, " pairs"]:
        *before, last = self.blocks
        for block in before:
            x = block(x, mask)
        assert isinstance(last, Block)
        first = self.norm(last.first(x, mask))
        return self.out(self.activation(self.dense(first)))[:, 0]

    def pair_bytes(self, texts: TextFeatures, record: RawVideos) -> int:
        """Bytes per pair: some ten numbers per token and channel, for each layer if there are gradients."""
        layers = len(self.blocks) if torch.is_grad_enabled() else 1
        return 14 * layers * (1 + self.frames) * self.dim * texts.sentence.element_size()
