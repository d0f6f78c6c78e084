"""The first output of a script, before its imports, which take seconds.

Every script imports this module before any slow import. If the user called that script and requested
help, the help is printed from the script's source, of which only the command line's dataclasses
are executed; otherwise a line says that it is starting. Imported from anywhere else, it does nothing.
"""

import ast
import sys
import types
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
_SLOW = (
    "cache_frames",
    "check_data",
    "compare",
    "evaluate",
    "index",
    "inspect_run",
    "serve",
    "train",
    "tune",
)
"""Scripts that load PyTorch, Ray and MLflow."""
_LIGHT = ("dataclasses", "pathlib", "tcmgc.config", "typing", "tyro")
"""Modules that a command line's dataclasses may need and that import quickly."""


def begin(script: Path, words: list[str]) -> None:
    """Print the help and end, or say that the script is starting."""
    if {"-h", "--help"} & set(words):
        _help(script, words)
    elif script.stem in _SLOW and not _quiet(words):
        print("loading PyTorch, Ray and MLflow…", flush=True)


def arguments(script: Path) -> tuple[Any, str] | None:
    """A script's class of arguments and its docstring, without its imports.

    None if the class needs these imports.
    """
    text = script.read_text()
    tree = ast.parse(text)
    kept: list[ast.stmt] = []
    for node in tree.body:
        module = node.module if isinstance(node, ast.ImportFrom) else None
        light = module in _LIGHT or (isinstance(node, ast.Import) and node.names[0].name in _LIGHT)
        if light or (isinstance(node, ast.ClassDef) and node.decorator_list):
            kept.append(node)
        elif module == "pipeline" and isinstance(node, ast.ImportFrom):
            names = [name for name in node.names if name.name == "cli"]
            if names:
                kept.append(ast.copy_location(ast.ImportFrom("pipeline", names, 0), node))
    made = types.ModuleType(f"pipeline._arguments_of_{script.stem}")
    made.__file__ = str(script)
    sys.modules[made.__name__] = made  # `inspect` looks there for the source of a class
    try:
        exec(compile(ast.Module(kept, []), str(script), "exec"), made.__dict__)
    except (ImportError, NameError, AttributeError):
        return None
    found = made.__dict__.get("Arguments")
    return found and (found, ast.get_docstring(tree) or "")


def _help(script: Path, words: list[str]) -> None:
    from pipeline import cli

    found = arguments(script)
    if found is None:
        return
    kind, about = found
    rest = [word for word in words if word not in ("-h", "--help")]
    if script.stem == "tune":
        from tune_spaces import SPACES

        space = SPACES.get(rest.pop(0)) if rest and rest[0] in SPACES else None
        listed = "\n".join(f"  {one.name:26}{one.source}" for one in SPACES.values())
        about += f"\n\n{space.name}: {space.title}" if space else f"\n\nspaces:\n{listed}"
    cli.show_help(kind, rest, f"python pipeline/{script.name}", about)
    sys.stdout.flush()
    sys.exit(0)


def _quiet(words: list[str]) -> bool:
    at = words.index("--quiet") if "--quiet" in words else -1
    return (at >= 0 and words[at + 1 : at + 2] != ["False"]) or "--quiet=True" in words


def _script() -> Path | None:
    """The script of this folder that the user called; None in any other process."""
    called = getattr(sys.modules.get("__main__"), "__file__", None)
    path = Path(called).resolve() if called is not None else HERE
    return path if path.parent == HERE and path.stem != "command" else None


if (_called := _script()) is not None:
    begin(_called, sys.argv[1:])
