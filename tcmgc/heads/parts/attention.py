"""Language-video attention (Eq. 2-11), literally and collapsed.

Between the softmax over frames and the last layer norm, the block is affine in the attention
weights. Everything that depends on one video alone is therefore computed once
(:meth:`LanguageVideoAttention.collapse`), and a pair needs only its weights and a few small sums
(:mod:`tcmgc.heads.parts.collapsed`). The two forms agree to rounding. Only dropout on the fully
connected branch does not collapse.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tcmgc.config import Attention
from tcmgc.towers import draws
from tcmgc.towers.features import _Batched

_TOGETHER = 128
"""Videos collapsed at a time without gradients: intermediate results are larger than the record."""


@dataclass(frozen=True)
class CollapsedVideos(_Batched):
    """The data that :meth:`LanguageVideoAttention.collapse` keeps of each video.

    A state is a (head, frame) pair. A root is a matrix whose rows have the same inner products as
    certain vectors: a weighted sum of the vectors has the length of the same weighted sum of rows.
    Variances and lengths are thus sums of squares, which rounding cannot make negative.
    """

    keys: Float[Tensor, "videos frames dim"]
    """Projected keys (Eq. 3); with one head W_Q is folded in, so texts need no projection."""
    key_bias: Float[Tensor, "videos frames"]
    """What the query's bias adds to each frame's logit, if W_Q is folded in."""
    outputs: Float[Tensor, "videos states dim"]
    """States after the fully connected layer and the scale of the last layer norm."""
    attended_root: Float[Tensor, "videos states states"]
    """Root of the states after the output projection, for the variance in Eq. 6."""
    mixed_root: Float[Tensor, "videos states_1 states_1"]
    """Root of the constant and the states after the fully connected layer, for the variance in Eq. 7."""
    output_root: Float[Tensor, "videos states_2 states_2"]
    """Root of the last bias, the constant and `outputs`, for the length of the result of Eq. 7."""
    frame_mask: Bool[Tensor, "videos frames"]
    """True for frames that take part."""

    def __len__(self) -> int:
        return len(self.keys)

    def logit_offset(self) -> Float[Tensor, "videos frames"]:
        """Offset of the logits: the queries' bias, and -inf for masked frames."""
        return self.key_bias.masked_fill(~self.frame_mask, float("-inf"))


class LanguageVideoAttention(nn.Module):
    """X-Pool's cross-attention block, with sentences or words as queries (Eq. 2-11).

    ``z = LN3(FC(a) + a)`` with ``a = LN2(softmax(Q K^T / sqrt(d_p)) V W_O)``, ``Q = LN1(t) W_Q``,
    ``K = LN1(v) W_K``, ``V = LN1(v) W_V``; with several heads, each attends with its own dim / heads
    columns and d_p is that width. As in X-Pool, matrices are initialised as the identity and biases
    as zero, so an untrained block passes CLIP's features on.

    Args:
        options: heads, residual, projections, dropout, initialisation of the fully connected layer.
        dim: width of the joint space.

    Raises:
        ValueError: heads that do not divide dim.
    """

    def __init__(self, options: Attention, dim: int) -> None:
        super().__init__()
        if dim % options.heads:
            raise ValueError(
                f"attention heads must divide the width {dim}; got heads={options.heads}"
            )
        self.dim, self.heads, self.residual = dim, options.heads, options.residual
        self.dropout = options.dropout

        def projection() -> nn.Module:
            return _identity_linear(dim) if options.projections else nn.Identity()

        self.norm_inputs = nn.LayerNorm(dim)
        self.query, self.key, self.value = projection(), projection(), projection()
        self.out = projection()
        self.norm_attended = nn.LayerNorm(dim)
        self.linear = _identity_linear(dim)
        if options.initialise == "normal":
            nn.init.normal_(self.linear.weight, std=0.02)
        self.norm_output = nn.LayerNorm(dim)

    @property
    def draws(self) -> bool:
        """Whether training draws random numbers."""
        return self.dropout > 0

    @property
    def drops(self) -> bool:
        """Whether dropout is active now, so that the block does not collapse."""
        return self.training and self.draws

    @property
    def eps(self) -> tuple[float, float]:
        """Of the layer norms in Eq. 6 and 7."""
        return self.norm_attended.eps, self.norm_output.eps

    def forward(
        self,
        queries: Float[Tensor, "texts queries dim"],
        frames: Float[Tensor, "videos frames dim"],
        frame_mask: Bool[Tensor, "videos frames"],
        seeds: Int[Tensor, "texts"] | None = None,
    ) -> Float[Tensor, "texts queries videos dim"]:
        """Pool every video's frames for every text's queries, equation by equation.

        The reference for the collapsed form; it holds texts x queries x videos x dim numbers
        several times over. Frames outside the mask get no attention.

        Args:
            queries: sentences or words.
            frames: of all videos.
            frame_mask: True for frames that take part.
            seeds: each text's seed for dropout; needed while dropout is active.
        """
        normed = self.norm_inputs(frames)
        logits = torch.einsum(
            "tqhe,vfhe->tqhvf",
            self.project(queries).unflatten(-1, (self.heads, -1)),
            self.key(normed).unflatten(-1, (self.heads, -1)),
        )
        weights = logits.masked_fill(~frame_mask, float("-inf")).softmax(-1)
        values = self.value(normed).unflatten(-1, (self.heads, -1))
        attended = torch.einsum("tqhvf,vfhe->tqvhe", weights, values).flatten(-2)
        attended = self.norm_attended(self.out(attended))
        mixed = self.linear(attended)
        if self.drops:
            if seeds is None:
                raise ValueError(
                    "dropout is active in training and needs the texts' seeds; got none"
                )
            mixed = draws.dropout(mixed, self.dropout, seeds)
        return self.norm_output(mixed + attended if self.residual else mixed)

    def project(
        self, queries: Float[Tensor, "texts queries dim"]
    ) -> Float[Tensor, "texts queries dim"]:
        """Eq. 2 and 8, with 1 / sqrt(d_p) folded in."""
        return self.query(self.norm_inputs(queries)) * (self.dim // self.heads) ** -0.5

    def queries(
        self, queries: Float[Tensor, "texts queries dim"]
    ) -> Float[Tensor, "texts queries dim"]:
        """The queries for the keys of :meth:`collapse`."""
        return self.norm_inputs(queries) if self.heads == 1 else self.project(queries)

    def weights(
        self,
        queries: Float[Tensor, "texts queries dim"],
        record: CollapsedVideos,
    ) -> Float[Tensor, "texts queries heads videos frames"]:
        """The softmax of Eq. 5 and 9: each query's weights over the frames of each video."""
        logits = torch.einsum(
            "tqhe,vfhe->tqhvf",
            self.queries(queries).unflatten(-1, (self.heads, -1)),
            record.keys.unflatten(-1, (self.heads, -1)),
        )
        return (logits + record.logit_offset()).softmax(-1)

    def collapse(
        self,
        frames: Float[Tensor, "videos frames dim"],
        frame_mask: Bool[Tensor, "videos frames"],
    ) -> CollapsedVideos:
        """Compute the video's side of the block, once per video. Differentiable.

        Attention weights of a head sum to 1, so the output bias folds into the frames; centring
        the states over dim makes LN2 a division by the root of a quadratic form in the weights,
        and the fully connected layer, its residual and LN3's centring are linear after that.
        """
        if len(frames) > _TOGETHER and not torch.is_grad_enabled():
            parts = zip(frames.split(_TOGETHER), frame_mask.split(_TOGETHER), strict=True)
            return CollapsedVideos.cat([self.collapse(*part) for part in parts])
        normed = self.norm_inputs(frames)
        states = self._through_out(self.value(normed))
        attended = _centred(states)
        mixed = self._mix(attended * self.norm_attended.weight)
        constant = self.mixed_constant().expand(len(frames), 1, -1)
        outputs = mixed * self.norm_output.weight
        scaled_constant = constant * self.norm_output.weight
        last_bias = self.norm_output.bias.expand(len(frames), 1, -1)
        share = self.dim**-0.5
        keys = self.key(normed)
        key_bias = keys.new_zeros(keys.shape[:2])
        if self.heads == 1:
            keys = keys * share
            if isinstance(self.query, nn.Linear):
                key_bias = keys @ self.query.bias
                keys = keys @ self.query.weight
        return CollapsedVideos(
            keys=keys,
            key_bias=key_bias,
            outputs=outputs,
            attended_root=_root(attended * share),
            mixed_root=_root(torch.cat([constant, mixed], 1) * share),
            output_root=_root(torch.cat([last_bias, scaled_constant, outputs], 1)),
            frame_mask=frame_mask,
        )

    def alone(
        self, frames: Float[Tensor, "videos frames dim"]
    ) -> Float[Tensor, "videos frames dim"]:
        """The block's output (Eq. 7) for each frame if all attention of every head is on that frame."""
        attended = self.norm_attended(self.out(self.value(self.norm_inputs(frames))))
        mixed = self.linear(attended)
        return self.norm_output(mixed + attended if self.residual else mixed)

    def mixed_constant(self) -> Float[Tensor, " dim"]:
        """LN2's bias after the fully connected layer and its residual, centred over dim."""
        mixed = F.linear(self.norm_attended.bias, self.linear.weight, self.linear.bias)
        return _centred(mixed + self.norm_attended.bias if self.residual else mixed)

    def _mix(
        self, states: Float[Tensor, "videos states dim"]
    ) -> Float[Tensor, "videos states dim"]:
        mixed = F.linear(states, self.linear.weight)
        return _centred(mixed + states if self.residual else mixed)

    def _through_out(
        self, values: Float[Tensor, "videos frames dim"]
    ) -> Float[Tensor, "videos states dim"]:
        """Each head's part of every frame's value after the output projection."""
        if self.heads == 1:
            return self.out(values)
        if isinstance(self.out, nn.Linear):
            weight, bias = self.out.weight, self.out.bias / self.heads
        else:
            weight = torch.eye(self.dim, dtype=values.dtype, device=values.device)
            bias = weight.new_zeros(self.dim)
        heads = values.unflatten(-1, (self.heads, -1))
        parts = weight.unflatten(1, (self.heads, -1))
        return torch.einsum("vfhe,dhe->vhfd", heads, parts).flatten(1, 2) + bias


def _identity_linear(dim: int) -> nn.Linear:
    linear = nn.Linear(dim, dim)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _centred(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    return x - x.mean(-1, keepdim=True)


def _root(
    vectors: Float[Tensor, "videos rows dim"],
) -> Float[Tensor, "videos rows rows"]:
    """Lower triangular L with ``L L^T = vectors vectors^T``, also for dependent vectors.

    The rows of L are the vectors' coordinates in an orthonormal basis of their span. The basis is
    a constant to autograd: rotating it changes no length, so gradients of lengths are exact (even
    for repeated frames, for which the derivative of a Cholesky factor does not exist). Inner
    products are computed in float64; otherwise coordinates of nearly dependent vectors would be noise.
    """
    wide = vectors.double()
    basis = wide.detach()
    with torch.no_grad():
        gram = basis @ basis.mT
        # A lower bound for the pivots: 1e-14 of the mean square, far below float32 rounding.
        floor = gram.diagonal(dim1=1, dim2=2).sum(-1) * 1e-14 + 1e-300
        factor = torch.linalg.cholesky(
            gram + torch.diag_embed(floor[:, None].expand(-1, gram.shape[1]))
        )
    mixed_gram = wide @ basis.mT
    root = torch.linalg.solve_triangular(factor, mixed_gram.mT, upper=False).mT
    return root.to(vectors.dtype)
