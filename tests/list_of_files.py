"""The list of files in docs/files.md: each file with the first line of its docstring.

Run as a script it writes the page: ``python tests/list_of_files.py``.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/files.md"

FOLDERS = {
    "pipeline": "Ray, MLflow and the command line; no tensor mathematics",
    "tcmgc": "the library; no Ray, no MLflow, nothing at import",
    "tune_spaces": "what a sweep varies, and what the paper found",
    "benchmarks": "ratios measured side by side in one run, each with `--json`",
    "fixtures": "what tests and benchmarks share",
    "tests": "a file a module",
}

HEAD = """# Files

Every file with the first line of its docstring. `python tests/list_of_files.py` writes this page;
a test holds it to the tree.

Imports go `pipeline → tune_spaces → tcmgc`, never back.
"""


def _line(folder: Path, path: Path) -> str:
    text = path.read_text()
    if path.suffix == ".py":
        said = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0].rstrip(".")
    else:
        said = text.partition("\n")[0].removeprefix("// ").rstrip(".,:")
    name = path.relative_to(folder).as_posix()
    return f"{name:34} {said.replace('``', '`')}".rstrip()


def page() -> str:
    """The page as it should be."""
    parts = [HEAD]
    for name, what in FOLDERS.items():
        folder = ROOT / name
        files = [p for p in folder.rglob("*") if p.suffix in (".py", ".cpp", ".h")]
        rows = "\n".join(sorted(_line(folder, path) for path in files))
        parts.append(f"## `{name}/`: {what}\n\n```\n{rows}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"written: {PAGE}")
