"""Possible next words of a command line, for the shell's completion, and lists of recipes and methods."""

import typing
from typing import Any, Literal

from tcmgc import recipes
from tcmgc.config import Config, flatten

_RECIPE = ("train", "tune", "cache_frames", "check_data")
"""Commands that take a recipe."""
_SPACE = ("tune", "report")
"""Commands that take a space."""
_SCRIPTS = {
    "bash": """_tcmgc() {
  local IFS=$'\\n'
  COMPREPLY=($(tcmgc __complete "$COMP_CWORD" "${COMP_WORDS[@]}" 2>/dev/null))
  [ ${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//:}
complete -o filenames -F _tcmgc tcmgc""",
    "zsh": """#compdef tcmgc
_tcmgc() {
  local -a found
  found=("${(@f)$(tcmgc __complete $((CURRENT - 1)) "${words[@]}" 2>/dev/null)}")
  if [[ -n "$found" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _tcmgc tcmgc""",
    "fish": """complete -c tcmgc -f -a '(tcmgc __complete (count (commandline -opc)) (commandline -opc) (commandline -ct))'""",
}


def script(shell: str) -> str:
    """The text for the shell's startup file.

    Raises:
        ValueError: an unknown shell.
    """
    if shell not in _SCRIPTS:
        raise ValueError(f"completion for {shell!r} is not known; known are {', '.join(_SCRIPTS)}")
    return _SCRIPTS[shell]


def catalogue() -> str:
    """Recipes, methods and spaces, one per line."""
    lines = ["recipes (tcmgc train RECIPE):"]
    width = max(map(len, recipes.RECIPES))
    for name, recipe in recipes.RECIPES.items():
        about = (recipe.__doc__ or "").strip().splitlines()
        lines.append(f"  {name:{width}}  {about[0] if about else ''}")
    lines.append("methods (tcmgc train RECIPE --method NAME [--fair]):")
    width = max(map(len, recipes.METHODS))
    lines += [f"  {name:{width}}  {method.line}" for name, method in recipes.METHODS.items()]
    lines.append("spaces (tcmgc tune SPACE RECIPE):")
    spaces = _spaces()
    width = max(map(len, spaces))
    lines += [f"  {name:{width}}  {space.title} ({space.source})" for name, space in spaces.items()]
    return "\n".join(lines)


def candidates(words: list[str], commands: list[str]) -> list[str]:
    """Possible words at a position of the command line.

    Args:
        words: the position, counted from 0, and the complete line, ``tcmgc`` first.
        commands: names of all commands.
    """
    place, line = int(words[0]), words[1:]
    begun = line[place] if place < len(line) else ""
    if place == 1:
        return _beginning(begun, [*commands, "completion", "--help", "--list", "--version"])
    command, before = line[1], line[place - 1]
    fields = _fields() if command in _RECIPE else {}
    if before.startswith("--"):
        values = fields.get(before.removeprefix("--"), [])
        return _beginning(begun, values)
    if begun.startswith("-"):
        return _beginning(begun, [*(f"--{name}" for name in fields), "--help"])
    if command in _SPACE and (place == 2 or command == "report"):
        return _beginning(begun, list(_spaces()))
    if command in _RECIPE and place == (3 if command == "tune" else 2):
        return _beginning(begun, list(recipes.RECIPES))
    return []


def _beginning(begun: str, words: list[str]) -> list[str]:
    return [word for word in words if word.startswith(begun)]


def _spaces() -> dict[str, Any]:
    import tune_spaces

    return tune_spaces.SPACES


def _fields() -> dict[str, list[str]]:
    """Every field of the demo's config by its command-line name, with its values if they are few."""
    config = recipes.recipe("demo")
    found = {}
    for path in flatten(config):
        if not path.endswith(".kind"):
            found[path.replace("_", "-")] = _values(config, path)
    return found | {"method": list(recipes.METHODS), "fair": []}


def _values(config: Config, path: str) -> list[str]:
    owner: Any = config
    *parents, last = path.split(".")
    for name in parents:
        owner = getattr(owner, name)
    kind = typing.get_type_hints(type(owner)).get(last)
    if kind is bool:
        return ["True", "False"]
    return [str(one) for one in typing.get_args(kind)] if typing.get_origin(kind) is Literal else []
