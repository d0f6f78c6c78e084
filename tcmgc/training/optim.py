"""CLIP4Clip's optimiser, its two learning rates and its schedule."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tcmgc.config import Optim


class BertAdam(torch.optim.Optimizer):
    """Adam without bias correction, decay added to the update (before the rate).

    m and v are the usual averages; the step is lr (m / (sqrt(v) + eps) + weight_decay p). This
    is what CLIP4Clip, X-CLIP, UCoFiA, TS2-Net, DRL and TC-MGC train with. Without correction
    the first steps are (1 - b1) / sqrt(1 - b2), about 0.7, of the sign: warm-up covers them.

    Args:
        parameters: Parameters or groups, each with its ``lr`` and ``weight_decay``.
        lr: Default rate.
        betas: Decay of the two averages.
        eps: Added to the root of the second.
        weight_decay: Default decay.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.2,
    ) -> None:
        super().__init__(
            parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p] = {
                        "exp_avg": torch.zeros_like(p),
                        "exp_avg_sq": torch.zeros_like(p),
                    }
            grads = [p.grad for p in params]
            first = [self.state[p]["exp_avg"] for p in params]
            second = [self.state[p]["exp_avg_sq"] for p in params]
            b1, b2 = group["betas"]
            torch._foreach_lerp_(first, grads, 1 - b1)
            torch._foreach_mul_(second, b2)
            torch._foreach_addcmul_(second, grads, grads, 1 - b2)
            update = torch._foreach_sqrt(second)
            torch._foreach_add_(update, group["eps"])
            step = torch._foreach_div(first, update)
            if group["weight_decay"]:
                torch._foreach_add_(step, params, alpha=group["weight_decay"])
            torch._foreach_add_(params, step, alpha=-group["lr"])


def build_optimiser(model: nn.Module, options: Optim) -> torch.optim.Optimizer:
    """Four groups: CLIP's weights and the new ones, each with and without decay.

    Biases, layer norms and other vectors do not decay. ``model`` has CLIP under ``text`` and
    ``visual``. Group names are in ``group["name"]``.
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        place = "clip" if name.startswith(("text.", "visual.")) else "new"
        decays = parameter.ndim >= 2
        key = f"{place}{'' if decays else ', no decay'}"
        group = groups.setdefault(
            key,
            {
                "name": key,
                "params": [],
                "lr": options.lr_clip if place == "clip" else options.lr_new,
                "weight_decay": options.weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise ValueError("nothing to train: every weight is frozen; see towers.freeze")
    rest: dict[str, Any] = {
        "lr": options.lr_new,
        "betas": options.betas,
        "eps": options.eps,
        "weight_decay": options.weight_decay,
    }
    if options.kind == "adam":
        return BertAdam(list(groups.values()), **rest)
    # Fused: one pass over the weights in place of several, for a memory bus that all workers of a machine share.
    return torch.optim.AdamW(list(groups.values()), **rest, fused=True)


def rate(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rates: up linearly over the first share, then a cosine to 0.

    The first step's factor is above 0 and the last one's too, so that no step is wasted.
    """
    rising = max(1, round(steps * warmup)) if warmup else 0
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Multiply every group's starting rate by a factor."""
    for group in optimiser.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor


def clip_gradients(model: nn.Module, norm: float) -> Tensor:
    """Scale all gradients so that their norm is at most ``norm``; gives the norm before."""
    return torch.nn.utils.clip_grad_norm_(
        [p for p in model.parameters() if p.grad is not None], norm
    )
