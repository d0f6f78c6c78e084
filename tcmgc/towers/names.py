"""Names of towers: open_clip's models, the JSON files in ``tcmgc/towers/models/``, and the user's own."""

import functools
import json
from pathlib import Path
from typing import Any

TOWERS = Path(__file__).parent / "models"
FOLDER = "local-dir:"
"""Before the path of a folder that was downloaded from Hugging Face, as open_clip writes it."""


@functools.cache
def open_clip() -> Any:
    """The package: its import takes seconds, and the processes that only direct others never need it."""
    import open_clip

    return open_clip


def known_towers() -> list[str]:
    """Names that :func:`tcmgc.towers.backbone.load_towers` takes, ours first."""
    return [path.stem for path in sorted(TOWERS.glob("*.json"))] + open_clip().list_models()


def register(name: str) -> str:
    """Make one of our JSON files, or the user's, known to open_clip; give its name there.

    Raises:
        ValueError: there is no such file or model; names near ones.
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
        ValueError: there is none, or the file is none.
    """
    if name.startswith(FOLDER):
        return folder_configuration(name)["model_cfg"]
    found = open_clip().get_model_config(register(name))
    if found is None:
        raise ValueError(f"towers.name: {name!r} is not an open_clip model: {json.dumps(name)}")
    return found


def image_size(name: str) -> int:
    """Side in pixels of the square frames that the model takes, without building it."""
    size = configuration(name)["vision_cfg"].get("image_size", 224)
    return size if isinstance(size, int) else size[0]


def width(name: str) -> int:
    """Width of the joint space, without building the model."""
    return configuration(name)["embed_dim"]


def _refuse_other_json(path: Path) -> None:
    """Raise for a file that is no open_clip model; open_clip would fail on it at every later call."""
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
