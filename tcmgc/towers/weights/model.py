"""Load a published system's checkpoint into the same method of this project."""

from torch import nn

from tcmgc.towers import published
from tcmgc.towers.weights.clip import differences
from tcmgc.towers.weights.files import Weights

_POSITIONS = ("temporal.positions.weight", "head.positions.weight")


def into_model(retriever: nn.Module, weights: Weights) -> str:
    """Load a complete published checkpoint; return a description of its origin.

    The authors' tables of frame positions always have 77 rows; only the first ones, which their
    code uses, are loaded.

    Args:
        retriever: Towers, temporal encoder and head (:class:`tcmgc.model.Retriever`).
        weights: Read by :func:`tcmgc.towers.weights.read`.

    Raises:
        ValueError: not a published system's file, or the model's method or size differs, with the keys
            that are missing, unknown or of another shape.
    """
    system = published.recognise(weights.tensors)
    if system is None:
        raise ValueError(
            f"{weights.path} is no checkpoint of a published system: its weights are named "
            f"{', '.join(list(weights.tensors)[:4])}; expected one of "
            f"{', '.join(dict.fromkeys(one.name for one in published.SYSTEMS))}"
        )
    own, state = retriever.state_dict(), published.translate(weights.tensors, system)
    for name in own.keys() & state.keys() & set(_POSITIONS):
        state[name] = state[name][: len(own[name])]
    state.setdefault("scale.log", own["scale.log"])  # a system whose scores have no scale
    wrong = differences(own, state)
    if wrong:
        raise ValueError(
            f"{weights.path} is a model of {system.name} and does not fit this one, which differs in method or "
            f"size: {wrong}"
        )
    retriever.load_state_dict(state)
    return f"{weights.container} with a model of {system.name}"
