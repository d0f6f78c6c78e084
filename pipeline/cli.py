"""The command line shared by all scripts: recipe, fields, one-sentence errors."""

import contextlib
import dataclasses
import difflib
import io
import logging
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from pipeline.interface import usage
from tcmgc import recipes, storage
from tcmgc.config import Cluster, Config, flatten, load

_CONFIG = "the file that holds the config (JSON, as a checkpoint's config.json)"
CHECKOUT = Path(__file__).resolve().parents[1]
Arguments = TypeVar("Arguments")
Fields = Annotated[Config, tyro.conf.arg(name="")]
"""A config whose fields are at the top level of the command line: ``--train.epochs 3``."""

_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_FOLDERS = ("local-dir:",)
"""Prefixes of a folder in the name of an open_clip model."""
_TYRO = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)


def in_job() -> bool:
    """Whether this process was started by ``ray job submit``."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def home() -> Path:
    """Base folder of relative paths: data, cache, runs and MLflow's database.

    ``TCMGC_HOME`` if it is set; else the checkout, or ``~/tcmgc`` under ``ray job submit``, which
    deletes its copy of the checkout.

    Raises:
        ValueError: it starts with ``~``, and this user has no home directory.
    """
    if chosen := os.environ.get("TCMGC_HOME"):
        return _expanded(chosen).resolve()
    return _expanded("~/tcmgc") if in_job() else CHECKOUT


def resolve(path: str) -> str:
    """An absolute path below :func:`home`, or the URI unchanged; a ``file://`` URI as its path.

    Raises:
        ValueError: it starts with ``~``, and this user has no home directory.
    """
    path = storage.without_scheme(path)
    if storage.is_uri(path):
        return path
    return os.path.normpath(home() / _expanded(path))


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(
            f"there is no home directory for {path!r}; set TCMGC_HOME to a folder that can be written to, "
            "or give absolute paths"
        ) from None


def command(script: str, *words: str) -> str:
    """A command of this project for the user to type in the working directory."""
    if (
        in_job()
    ):  # its copy of the checkout is deleted: for the user's own checkout, with the job's folder
        place = f"TCMGC_HOME={shlex.quote(str(home()))} "
        return place + shlex.join(["python", f"pipeline/{script}", *words])
    return shlex.join([python(), _from_here(CHECKOUT / "pipeline" / script), *words])


def python() -> str:
    """The name or path of this interpreter for the user to type."""
    found = shutil.which("python")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "python"
    return _from_here(Path(sys.executable))


def _from_here(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # outside, or the working directory was deleted
        return str(path)


def refuse_output(option: str, path: str | None) -> None:
    """Raise now if a file could not be written at the end; None is no file.

    Raises:
        ValueError: it is a folder, or its folder cannot be written to.
    """
    place = resolve(path) if path is not None else ""
    if path is None or storage.is_uri(place):
        return
    if Path(place).is_dir():
        raise ValueError(f"{option} {path}: {place} is a folder; expected the path of a file")
    there = next(parent for parent in Path(place).parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"{option} {path}: {there} is not a folder that can be written to")


def refuse_folder(option: str, path: str) -> None:
    """Raise now if a folder could not be created or written to later.

    Raises:
        ValueError: it is a file, or its parent folder cannot be written to.
    """
    place = resolve(path)
    if storage.is_uri(place):
        storage.resolve(place)
        return
    there = next(parent for parent in (Path(place), *Path(place).parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"{option} {path}: {there} is not a folder that can be written to")


@contextlib.contextmanager
def output(path: str) -> Iterator[Path]:
    """A local path for writing a file, which is then moved to ``path``, a path or a URI."""
    place = resolve(path)
    if not storage.is_uri(place):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as made:
        local = Path(made) / Path(storage.plain(place)).name
        yield local
        storage.upload(local, place)


def _towers(config: Config) -> Config:
    """The config with absolute paths of its towers' files, since workers run in other folders."""
    towers = config.towers
    name, pretrained = towers.name, towers.pretrained
    if name.endswith(".json"):
        name = resolve(name)
    if pretrained is not None and _is_file(pretrained):
        pretrained = resolve(pretrained)
    for prefix in _FOLDERS:
        if name.startswith(prefix):
            name = prefix + resolve(name.removeprefix(prefix))
    if (name, pretrained) == (towers.name, towers.pretrained):
        return config
    return dataclasses.replace(
        config, towers=dataclasses.replace(towers, name=name, pretrained=pretrained)
    )


def _is_file(pretrained: str) -> bool:
    """Whether weights are given by a file and not by an open_clip tag."""
    if ":" in pretrained and not storage.is_uri(pretrained):
        return False  # for example hf-hub:NAME
    return pretrained.startswith("~") or "/" in pretrained or pretrained.endswith(_WEIGHTS)


def placed(
    config: Config, *, workers: int = 1, gpus: Any = "auto", cluster: Cluster | None = None
) -> Config:
    """A checkpoint's config with this command's placement instead of the checkpoint's.

    Args:
        config: The checkpoint's config.
        workers: Processes of this command.
        gpus: As ``train.gpus``.
        cluster: This command's; None for the defaults, which fit anywhere.
    """
    train = dataclasses.replace(
        config.train,
        workers=workers,
        min_workers=0,
        gpus=gpus,
        pieces=config.train.pieces_of(workers),
        batch_size=max(config.train.batch_size, workers),
    )
    return dataclasses.replace(config, train=train, cluster=cluster or Cluster())


def parse(
    kind: type[Arguments],
    argv: Sequence[str] | None,
    prog: str,
    description: str,
    *,
    default_recipe: str | None = "demo",
    base: Config | None = None,
    fair: bool = False,
) -> Arguments:
    """Read ``[RECIPE | --config FILE] [--method NAME [--fair]] [--field.name value ...]`` into ``kind``.

    ``--list`` prints recipes and methods and ends the process.

    Args:
        kind: A dataclass with a field ``config: Fields`` and the command's other fields,
            each with a default.
        argv: Words of the command line; None for this process's.
        prog: What the user typed.
        description: First lines of ``--help``.
        default_recipe: Recipe if none is given; None if the command has no config.
        base: Config whose fields the command line replaces, instead of a recipe's.
        fair: Replace fields of the recipe with the settings for comparing methods on it (:func:`tcmgc.recipes.fair`).

    Raises:
        ValueError: an unknown recipe or method, an invalid config file, or an address with a password.
    """
    words = _with_flags(kind, sys.argv[1:] if argv is None else argv)
    _refuse_passwords(words)
    if {"-h", "--help"} & set(words):
        show_help(kind, words, prog, description, default_recipe=default_recipe, base=base)
        sys.exit(0)
    if default_recipe is None:
        refuse_unknown(words, _known(None, _spelled(kind)))
        return _read(kind, args=words, prog=prog, description=description)
    if "--list" in words and "list" not in {f.name for f in dataclasses.fields(kind)}:  # type: ignore[arg-type]
        from pipeline.interface import completion

        print(completion.catalogue())
        sys.exit(0)
    name = words.pop(0) if words and not words[0].startswith("-") else None
    if (file := _taken(words, "--config", _CONFIG)) is not None:
        if name is not None:
            raise ValueError(f"give a recipe ({name}) or --config, not both")
        config = _load(file)
    else:
        config = base or recipes.recipe(name or default_recipe)
        config = recipes.fair(config) if fair else config
    if base is None:
        config = _with_method(words, config)
    others = {f.name: _default(f) for f in dataclasses.fields(kind) if f.name != "config"}  # type: ignore[arg-type]
    make: Callable[..., Arguments] = kind
    default = make(config=config, **others)
    refuse_unknown(words, _known(config, others))
    found: Any = _read(kind, default=default, args=words, prog=prog, description=description)
    for path, value in flatten(found.config).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{path.replace('_', '-')} must be a finite number; got {value}")
    return dataclasses.replace(found, config=_towers(found.config))


def show_help(
    kind: type,
    words: Sequence[str],
    prog: str,
    description: str,
    *,
    default_recipe: str | None = "demo",
    base: Config | None = None,
) -> None:
    """Print the text of ``--help``, with the values of the recipe that the words begin with."""
    fields = dataclasses.fields(kind)
    if not any(f.name == "config" for f in fields):
        first = "".join(f"[{name.upper()}] " for name in usage.positional(kind))
        usage.show(description, prog, f"{first}[--field value ...]", {"": kind})
        return
    name = words[0] if words and not words[0].startswith("-") else default_recipe or "demo"
    config = base or recipes.recipe(name)
    default = kind(config=config, **{f.name: _default(f) for f in fields if f.name != "config"})
    about = (
        f"{description}\n\nrecipes: {', '.join(recipes.RECIPES)};\n"
        "NAME:smoke shrinks one to seconds on the demo corpus\n"
        f"methods: {', '.join(recipes.METHODS)};\n"
        "--method takes its authors' settings for the data set, with --fair the recipe's; --list says what they are"
    )
    forms = "[RECIPE | --config FILE] [--method NAME [--fair]] [--field.name value ...]"
    usage.show(about, prog, forms, usage.groups(default))


def _with_method(words: list[str], config: Config) -> Config:
    """The config with the method named in the words; removes it and ``--fair`` from them."""
    fair = "--fair" in words
    name = _taken(words, "--method", f"one of {', '.join(recipes.METHODS)}")
    if name is None:
        return config
    if fair:
        words.remove("--fair")
    print(recipes.note(config, name, fair=fair), file=sys.stderr)
    return recipes.applied(recipes.fair(config) if fair else config, name, fair=fair)


def given(words: Sequence[str]) -> set[str]:
    """The fields given on a command line, by dotted path."""
    names = (word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--"))
    return {name.replace("-", "_") for name in names}


def run(main: Callable[[], int | None]) -> None:
    """Run a command: an error that the user can fix is one sentence on stderr and exit code 2."""
    quiet()
    try:
        code = main()
    except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt as error:
        how = f" ({error})" if str(error) else ""
        print(f"interrupted{how}; the same command goes on", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.exit(code or 0)


def quiet() -> None:
    """Hide what libraries log through the root logger about every model that they create."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger().setLevel(logging.WARNING)
    for name in ("mlflow.store.db.utils", "alembic"):  # messages on creating a database's tables
        logging.getLogger(name).setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_tells_something)


def _tells_something(record: logging.LogRecord) -> bool:
    """Whether a library's message is worth a line: not if intended, or repeated by an error."""
    said = record.getMessage()
    return not said.startswith(("No pretrained weights loaded", "Failed to download weights"))


def _read(kind: Any, **options: Any) -> Any:
    """The result of tyro; its errors become one sentence instead of a box of lines."""
    said = io.StringIO()
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "2000"
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, config=_TYRO, **options)
    except SystemExit as stopped:
        if not stopped.code:
            raise
        raise ValueError(_sentence(said.getvalue())) from None
    finally:
        os.environ.pop("COLUMNS")
        if width is not None:
            os.environ["COLUMNS"] = width


def _sentence(box: str) -> str:
    """The first paragraph of tyro's message, which is in a box or between rules."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines():
        content = line.strip("│ ")
        # A box has its title in its upper edge; without one, the title is a separate paragraph.
        if content.strip("╭╮╰╯─-") and not content.startswith("╭"):
            sections[-1].append(content)
        else:
            sections.append([])
    sections = [section for section in sections if section]
    told = sections if "│" in box else sections[1:]
    text = " ".join(told[0]) if told else ""
    text = re.sub(r"^Error parsing (config\.?\w*|[\w.]+): (?=\S+\.)", "", text)
    text = re.sub(r"^Error parsing ", "", text).replace(". Expected ", "; expected ").rstrip(".")
    text = re.sub(
        r"invalid literal for int\(\) with base 10: ", "expected a whole number; got ", text
    )
    text = re.sub(r"could not convert string to float: ", "expected a number; got ", text)
    return text[:1].lower() + text[1:] if text else box.strip()


def _with_flags(kind: type, argv: Sequence[str]) -> list[str]:
    """The words, with a value added to each switch without one: ``--quiet`` means ``--quiet True``."""
    switches = {f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(kind) if f.type is bool}
    words: list[str] = []
    for at, word in enumerate(argv):
        words.append(word)
        if word.replace("_", "-") in switches and argv[at + 1 : at + 2] not in (
            ["True"],
            ["False"],
        ):
            words.append("True")
    return words


def _taken(words: list[str], option: str, what: str) -> str | None:
    """The value of ``--option VALUE`` or ``--option=VALUE``, which is removed from the words."""
    for at, word in enumerate(words):
        if word == option:
            if at + 1 == len(words) or words[at + 1].startswith("--"):
                break
            value = words[at + 1]
            del words[at : at + 2]
            return value
        if word.startswith(f"{option}="):
            del words[at]
            return word.partition("=")[2]
    else:
        return None
    raise ValueError(f"{option} needs {what}")


def _load(file: str) -> Config:
    """A config file, by its path or URI."""
    place = resolve(file)
    if not storage.is_uri(place):
        if not Path(place).is_file():
            raise ValueError(
                f"--config {file}: there is no file {place} (relative paths are relative to {home()})"
            )
        return load(place)
    with tempfile.TemporaryDirectory() as made:
        return load(storage.download(place, Path(made) / "config.json"))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _refuse_passwords(words: Sequence[str]) -> None:
    for word in words:
        address = word.partition("=")[2] if word.startswith("--") else word
        if storage.has_password(address):
            raise ValueError(
                f"an address {address.partition('://')[0]}://... was given with a password in it, which checkpoints "
                "and MLflow would keep; leave it out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile"
            )


def _spelled(kind: Any) -> dict[str, Any]:
    """A command's own fields by their command-line names, with their defaults."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {}
    for field in dataclasses.fields(kind):
        notes = getattr(hints[field.name], "__metadata__", ())
        names = [note.name for note in notes if getattr(note, "name", None)]
        found[names[0] if names else field.name] = _default(field)
    return found


def _known(config: Config | None, others: dict[str, Any]) -> list[str]:
    """Every field of a command line, by dotted path."""
    known = [path for path in flatten(config) if not path.endswith(".kind")] if config else []
    for name, value in others.items():
        nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
        known += [f"{name}.{f.name}" for f in dataclasses.fields(value)] if nested else [name]
    return known


def refuse_unknown(words: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ValueError for an unknown field; lists those with a similar name."""
    spelled = {path.replace("_", "-") for path in known} | {"help"}
    for word in words:
        name = word.removeprefix("--").partition("=")[0].replace("_", "-")
        if word.startswith("--") and name not in spelled:
            near = difflib.get_close_matches(name, spelled, n=3)
            shown = ", ".join(f"--{match}" for match in near)
            hint = f"near it: {shown}" if near else "--help lists them all"
            raise ValueError(f"there is no field --{name}; {hint}")
