"""Rows of the paper's tables as text that can be compared with the page."""

from tune_spaces.space import PARAMETERS, T2V


def rates(text: str) -> dict[tuple[float, str], dict[str, float]]:
    """Tables 5 to 7: ``rate R@1 R@5 R@10 RSum parameters | R@1 … parameters``, remove then fuse."""
    found = {}
    for line in text.strip().splitlines():
        rate, _, rest = line.strip().partition(" ")
        for mode, cells in zip(("remove", "fuse"), rest.split("|"), strict=True):
            found[float(rate), mode] = t2v(cells)
    return found


def t2v(cells: str) -> dict[str, float]:
    """``R@1 R@5 R@10 RSum parameters``; only parameters if the others are unknown."""
    values = [float(cell) for cell in cells.split()]
    names = (*T2V, PARAMETERS)
    return dict(zip(names[-len(values) :], values, strict=True))
