"""Where the reference numbers are: those of heads in the repository, whole models' outside it.

``tests/goldens`` holds numbers for heads and optimisers and is always there. ``TCMGC_GOLDENS``
(default ``../shared/goldens``) may name a folder with more: other sizes of the same, and whole
models in ``systems``, which are too large for the repository.
"""

import os
from pathlib import Path

INSIDE = Path(__file__).resolve().parent / "goldens"
OUTSIDE = Path(os.environ.get("TCMGC_GOLDENS", INSIDE.parents[1] / "../shared/goldens"))


def found(pattern: str) -> list[Path]:
    """Files of a pattern such as ``peers/xpool_*.safetensors``, inside and outside the repository.

    Raises:
        FileNotFoundError: the repository's own folder lacks them all, where it has that subfolder.
    """
    own = sorted(INSIDE.glob(pattern))
    if not own and (INSIDE / pattern).parent.is_dir():
        raise FileNotFoundError(f"no {pattern} in {INSIDE}: the repository's own are missing")
    return own + sorted(OUTSIDE.glob(pattern))


def label(path: Path) -> str:
    """A test id: the file's name, and whether it lies outside the repository."""
    return path.stem if path.is_relative_to(INSIDE) else f"{path.stem} (outside)"


def left_out() -> str | None:
    """What is not tested for want of files, in a line; None where all are there."""
    if any(OUTSIDE.glob("systems/*.safetensors")):
        return None
    return f"goldens of whole models are left out: none in {OUTSIDE}/systems (TCMGC_GOLDENS names another folder)"
