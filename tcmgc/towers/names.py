"""Names of towers: open_clip's models, the JSON files in ``tcmgc/towers/models/``, and the user's own."""

import functools
import json
from pathlib import Path
from typing import Any

TOWERS = Path(__file__).parent / "models"
FOLDER = "local-dir:"
"""open_clip's prefix for the path of a folder that was downloaded from Hugging Face."""


@functools.cache
def open_clip() -> Any:
    """The package, imported late: that takes seconds, and processes that only coordinate do not need it."""
    import open_clip

    return open_clip


def known_towers() -> list[str]:
    """Names that :func:`tcmgc.towers.backbone.load_towers` accepts, ours first."""
    return [path.stem for path in sorted(TOWERS.glob("*.json"))] + open_clip().list_models()


def register(name: str) -> str:
    """Register one of our JSON files, or the user's, with open_clip; return its name there.

    Raises:
        ValueError: there is no such file or model; lists similar names.
    """
    if name.startswith(FOLDER):
        folder_configuration(name)
        return name
    path = TOWERS / f"{name}.json" if not name.endswith(".json") else Path(name)
    if path.is_file():
        _refuse_other_json(path)
        open_clip().add_model_config(path)
        return path.stem
    if name.endswith(".json"):
        raise ValueError(f"towers.name: there is no file {name}; expected an open_clip model JSON")
    if name not in open_clip().list_models():
        import difflib

        near = difflib.get_close_matches(name, known_towers(), n=4) or known_towers()[:4]
        raise ValueError(
            f"towers.name: open_clip has no model {name!r}; near it: {', '.join(near)}. "
            "`python -c 'import open_clip; print(open_clip.list_models())'` lists all"
        )
    return name


def folder_configuration(name: str) -> dict[str, Any]:
    """``open_clip_config.json`` of a folder, for a name that begins with ``local-dir:``.

    Raises:
        ValueError: the folder has none, or it does not describe a model.
    """
    path = Path(name.removeprefix(FOLDER)) / "open_clip_config.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"towers.name: {name} is no folder of an open_clip model, for {path} cannot be read ({error})"
        ) from error
    if "model_cfg" not in found:
        raise ValueError(f"towers.name: {path} has no model_cfg, which describes the model")
    return found


def configuration(name: str) -> dict[str, Any]:
    """open_clip's JSON of a model.

    Raises:
        ValueError: there is none, or the file is not one.
    """
    if name.startswith(FOLDER):
        return folder_configuration(name)["model_cfg"]
    found = open_clip().get_model_config(register(name))
    if found is None:
        raise ValueError(f"towers.name: {name!r} is not an open_clip model: {json.dumps(name)}")
    return found


def image_size(name: str) -> int:
    """Side in pixels of the model's square input frames, without building the model."""
    size = configuration(name)["vision_cfg"].get("image_size", 224)
    return size if isinstance(size, int) else size[0]


def width(name: str) -> int:
    """Width of the joint space, without building the model."""
    return configuration(name)["embed_dim"]


def _refuse_other_json(path: Path) -> None:
    """Raise for a file that is not an open_clip model; otherwise open_clip fails at every later call."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"towers.name: {path} cannot be read as JSON ({error})") from error
    needed = ("embed_dim", "vision_cfg", "text_cfg")
    missing = [name for name in needed if not isinstance(found, dict) or name not in found]
    if missing:
        raise ValueError(
            f"towers.name: {path} is not an open_clip model: {', '.join(missing)} missing"
        )
