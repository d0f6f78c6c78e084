"""Optimisers, learning rates and schedules: those of the published systems, and our own.

CLIP's weights (both towers and the logit scale) and new weights have different rates. A module in
the towers whose weights a method adds sets ``added = True``; they count as new weights.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tcmgc.config import Optim

FIRST_RATE = 1e-8
"""CenterCLIP's rate at the first step, which is also the minimum."""


class _Adam(torch.optim.Optimizer):
    """Adam's two averages; subclasses compute the update from them.

    Args:
        parameters: Parameters or groups, each with its ``lr`` and ``weight_decay``.
        lr: Default rate.
        betas: Decay of the two averages.
        eps: Added to the root of the second.
        weight_decay: Default decay.
        more: Further settings of a group.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.2,
        **more: float,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, settings | more)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self.update(group, params)

    def update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Change a group's parameters."""
        raise NotImplementedError

    def averages(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The first average of each parameter, and the root of the second with eps added."""
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        first = [self.state[p]["exp_avg"] for p in params]
        second = [self.state[p]["exp_avg_sq"] for p in params]
        b1, b2 = group["betas"]
        torch._foreach_lerp_(first, grads, 1 - b1)
        torch._foreach_mul_(second, b2)
        torch._foreach_addcmul_(second, grads, grads, 1 - b2)
        root = torch._foreach_sqrt(second)
        torch._foreach_add_(root, group["eps"])
        return first, list(root)


class BertAdam(_Adam):
    """Adam without bias correction, decay added to the update (before the rate).

    m and v are the usual averages; the step is lr (m / (sqrt(v) + eps) + weight_decay p).
    CLIP4Clip, X-CLIP, UCoFiA, TS2-Net, DRL and TC-MGC train with it. Without correction the
    first steps are (1 - b1) / sqrt(1 - b2), about 0.7, times the sign: warm-up covers them.

    Args:
        parameters: Parameters or groups, each with its ``lr`` and ``weight_decay``.
        lr: Default rate.
        betas: Decay of the two averages.
        eps: Added to the root of the second.
        weight_decay: Default decay.
        max_norm: Each parameter's gradient is clipped to this norm separately. If all gradients
            together were clipped to norm 1 before, a maximum of 1 changes nothing.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.2,
        max_norm: float = 1.0,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, max_norm=max_norm)

    def update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """One step of a group."""
        first, root = self.averages(group, params, _clipped(params, group["max_norm"]))
        step = torch._foreach_div(first, root)
        if group["weight_decay"]:
            torch._foreach_add_(step, params, alpha=group["weight_decay"])
        torch._foreach_add_(params, step, alpha=-group["lr"])


class HfAdamW(_Adam):
    """AdamW of transformers 4, with which X-Pool trains; arguments as in :class:`BertAdam`.

    The step is lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps), so eps is added before the bias
    correction; then p is multiplied by 1 - lr weight_decay. PyTorch adds eps to the corrected root
    and decays before the step.
    """

    def update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """One step of a group."""
        grads = [p.grad for p in params if p.grad is not None]
        first, root = self.averages(group, params, grads)
        b1, b2 = group["betas"]
        sizes = []
        for p in params:
            count = self.state[p].get("step", torch.zeros((), dtype=torch.float32)) + 1
            self.state[p]["step"] = count
            steps = int(count)
            sizes.append(-group["lr"] * math.sqrt(1 - b2**steps) / (1 - b1**steps))
        torch._foreach_addcdiv_(params, first, root, scalars=sizes)
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])


def _clipped(params: list[Tensor], norm: float) -> list[Tensor]:
    """Each gradient with a norm of at most ``norm``, as ``clip_grad_norm_`` computes it."""
    grads = [p.grad for p in params if p.grad is not None]
    norms = torch._foreach_norm(grads)
    torch._foreach_add_(norms, 1e-6)
    factors = [(norm / n).clamp(max=1.0) for n in norms]
    return list(torch._foreach_mul(grads, factors))


def build_optimiser(model: nn.Module, options: Optim) -> torch.optim.Optimizer:
    """Up to four groups: CLIP's weights and the new ones, each with and without decay.

    ``model`` has CLIP under ``text`` and ``visual`` and the logit scale as ``scale.log``. Group names
    are in ``group["name"]``.
    """
    added = _added(model)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        clip = name.startswith(("text.", "visual.")) or name == "scale.log"
        place = "clip" if clip and parameter not in added else "new"
        decays = _DECAYS[options.decay](name, parameter)
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
    if options.kind == "hf_adamw":
        return HfAdamW(list(groups.values()), **rest)
    # Fused: one pass over the weights instead of several, since all workers of a machine share the memory bus.
    return torch.optim.AdamW(list(groups.values()), **rest, fused=True)


_DECAYS: dict[str, Callable[[str, Tensor], bool]] = {
    "matrices": lambda name, parameter: parameter.ndim >= 2,
    "all_but_biases": lambda name, parameter: "bias" not in name,
    "all": lambda name, parameter: True,
}


def _added(model: nn.Module) -> set[Tensor]:
    """Weights inside the towers that a method adds."""
    modules = [module for module in model.modules() if getattr(module, "added", False)]
    return {parameter for module in modules for parameter in module.parameters()}


def rate(step: int, steps: int, options: Optim) -> float:
    """Factor on the learning rates at step ``step``, counted from 0, of ``steps``."""
    return _SCHEDULES[options.schedule](step, steps, options)


def _cosine(step: int, steps: int, options: Optim) -> float:
    rising = max(1, round(steps * options.warmup)) if options.warmup else 0
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _warmup_cosine(step: int, steps: int, options: Optim) -> float:
    share = step / steps
    if share < options.warmup:
        return share / options.warmup
    return 0.5 * (1 + math.cos(math.pi * share))


def _hf_cosine(step: int, steps: int, options: Optim) -> float:
    rising = int(steps * options.warmup)
    if step < rising:
        return step / rising
    return max(0.0, 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))))


def _centerclip(step: int, steps: int, options: Optim) -> float:
    rising, top = steps * options.warmup, options.lr_new
    if top == 0:
        return 0.0
    if rising and step <= rising:
        found = min(step / rising * (top - FIRST_RATE) + FIRST_RATE, top)
    else:
        found = 0.5 * top * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))
    return max(found, FIRST_RATE) / top


_SCHEDULES: dict[str, Callable[[int, int, Optim], float]] = {
    "cosine": _cosine,
    "warmup_cosine": _warmup_cosine,
    "hf_cosine": _hf_cosine,
    "centerclip": _centerclip,
}


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times a factor."""
    for group in optimiser.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor


def clip_gradients(model: nn.Module, norm: float) -> Tensor:
    """Scale all gradients so that their norm is at most ``norm``; return the norm before."""
    return torch.nn.utils.clip_grad_norm_(
        [p for p in model.parameters() if p.grad is not None], norm
    )
