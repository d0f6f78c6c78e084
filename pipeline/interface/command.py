"""``tcmgc COMMAND …``: every command of the pipeline under one name, with completion.

``tcmgc train demo`` is ``python pipeline/train.py demo``. Nothing is imported before a command is
known, so the first output appears immediately.
"""

import ast
import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
_USAGE = "usage: tcmgc COMMAND [WORDS ...]   tcmgc COMMAND --help   tcmgc --version"


def main(argv: list[str] | None = None) -> None:
    """The console command."""
    words = list(sys.argv[1:] if argv is None else argv)
    known = commands()
    first = words[0] if words else "--help"
    if first in ("-h", "--help"):
        width = max(map(len, known))
        print(f"{_USAGE}\n")
        for name, about in known.items():
            print(f"  {name:{width}}  {about}")
        print(f"  {'completion':{width}}  The shell's completion: tcmgc completion bash|zsh|fish.")
        print(f"  {'--list':{width}}  Recipes, methods and spaces.")
    elif first == "--version":
        print(f"tcmgc {_version()}")
    elif first == "--list":
        from pipeline.interface import completion

        print(completion.catalogue())
    elif first == "completion":
        from pipeline.interface import completion

        print(completion.script(words[1] if len(words) > 1 else "bash"))
    elif first == "__complete":
        from pipeline.interface import completion

        print("\n".join(completion.candidates(words[1:], list(known))))
    elif first in known:
        _run(first, words[1:])
    else:
        import difflib

        near = difflib.get_close_matches(first, known, n=3)
        hint = f"near it: {', '.join(near)}" if near else f"known are {', '.join(known)}"
        print(f"error: there is no command {first!r}; {hint}", file=sys.stderr)
        sys.exit(2)


def commands() -> dict[str, str]:
    """Names of the commands, and the first line of each one's docstring."""
    found = {}
    for path in sorted(HERE.glob("*.py")):
        text = path.read_text()
        if "\nif __name__ ==" in text:
            about = ast.get_docstring(ast.parse(text)) or ""
            found[path.stem] = about.splitlines()[0]
    return found


def _run(name: str, words: list[str]) -> None:
    # As if the script had been called, because messages, MLflow's source and jobs use its name.
    sys.argv = [str(HERE / f"{name}.py"), *words]
    from pipeline import cli
    from pipeline.interface import front

    front.begin(HERE / f"{name}.py", words)
    cli.run(importlib.import_module(f"pipeline.{name}").main)


def _version() -> str:
    try:
        return version("tcmgc")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    main()
