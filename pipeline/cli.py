"""The command line that every script shares: recipe, fields, errors in one sentence."""

import dataclasses
import difflib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from pipeline import usage
from tcmgc import recipes, storage
from tcmgc.config import Config, flatten, load

CHECKOUT = Path(__file__).resolve().parents[1]
Arguments = TypeVar("Arguments")
Fields = Annotated[Config, tyro.conf.arg(name="")]
"""A config whose fields stand at the top of the command line: ``--train.epochs 3``."""

_TYRO = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)


def in_job() -> bool:
    """Whether this process was started by ``ray job submit``."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def home() -> Path:
    """What relative paths are relative to: data, cache, runs and MLflow's database.

    ``TCMGC_HOME`` where it is set; the checkout; under ``ray job submit``, whose copy of the
    checkout is thrown away, ``~/tcmgc``.
    """
    if chosen := os.environ.get("TCMGC_HOME"):
        return Path(chosen).expanduser().resolve()
    return Path.home() / "tcmgc" if in_job() else CHECKOUT


def resolve(path: str) -> str:
    """An absolute path below :func:`home`, or the URI as it is."""
    if "://" in path:
        return path
    return str((home() / Path(path).expanduser()).absolute())


def parse(
    kind: type[Arguments],
    argv: Sequence[str] | None,
    prog: str,
    description: str,
    *,
    default_recipe: str | None = "demo",
    base: Config | None = None,
) -> Arguments:
    """Read ``[RECIPE | --config FILE] [--field.name value ...]`` into ``kind``.

    Args:
        kind: A dataclass with a field ``config: Fields`` and whatever else the command takes,
            every other field with a default.
        argv: Words of the command line; None for this process's.
        prog: What the user typed.
        description: First lines of ``--help``.
        default_recipe: Recipe where none is given; None where the command has no config.
        base: Config whose fields the command line replaces, instead of a recipe's.

    Raises:
        ValueError: an unknown recipe, a config file that is none, or an address with a password.
    """
    words = _with_flags(kind, sys.argv[1:] if argv is None else argv)
    _refuse_passwords(words)
    asks = bool({"-h", "--help"} & set(words))
    if default_recipe is None:
        if asks:
            usage.show(description, prog, "[--field value ...]", {"": kind})
            sys.exit(0)
        refuse_unknown(words, [f.name for f in dataclasses.fields(kind)])  # type: ignore[arg-type]
        return tyro.cli(kind, args=words, prog=prog, description=description, config=_TYRO)
    name = words.pop(0) if words and not words[0].startswith("-") else None
    if "--config" in words:
        at = words.index("--config")
        if at + 1 == len(words):
            raise ValueError(
                "--config needs the file that holds the config (JSON, as a checkpoint's config.json)"
            )
        if name is not None:
            raise ValueError(f"give a recipe ({name}) or --config, not both")
        config = load(words[at + 1])
        del words[at : at + 2]
    else:
        config = base or recipes.recipe(name or default_recipe)
    others = {f.name: _default(f) for f in dataclasses.fields(kind) if f.name != "config"}  # type: ignore[arg-type]
    make: Callable[..., Arguments] = kind
    if asks:
        about = (
            f"{description}\n\nrecipes: {', '.join(recipes.RECIPES)};\n"
            "NAME:smoke shrinks one to seconds on the demo corpus"
        )
        default = make(config=config, **others)
        forms = "[RECIPE | --config FILE] [--field.name value ...]"
        usage.show(about, prog, forms, usage.groups(default))
        sys.exit(0)
    refuse_unknown(words, _known(config, others))
    return tyro.cli(
        kind,
        default=make(config=config, **others),
        args=words,
        prog=prog,
        description=description,
        config=_TYRO,
    )


def run(main: Callable[[], int | None]) -> None:
    """Run a command: what the user can mend is one sentence on stderr and exit code 2."""
    quiet()
    try:
        code = main()
    except (ValueError, FileNotFoundError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # the reader has seen enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.exit(code or 0)


def quiet() -> None:
    """Keep off the terminal what libraries say through the root logger about every model they make."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger().setLevel(logging.WARNING)
    for name in ("mlflow.store.db.utils", "alembic"):  # that tables of a database are made
        logging.getLogger(name).setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: "No pretrained weights loaded" not in record.getMessage())


def _with_flags(kind: type, argv: Sequence[str]) -> list[str]:
    """The words, a value added to each switch that stands without: ``--quiet`` means ``--quiet True``."""
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


def _known(config: Config, others: dict[str, Any]) -> list[str]:
    """Every field of a command line, by dotted path."""
    known = [path for path in flatten(config) if not path.endswith(".kind")]
    for name, value in others.items():
        nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
        known += [f"{name}.{f.name}" for f in dataclasses.fields(value)] if nested else [name]
    return known


def refuse_unknown(words: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ValueError for a field that there is not, with those that are spelt nearly so."""
    spelled = {path.replace("_", "-") for path in known} | {"help"}
    for word in words:
        name = word.removeprefix("--").partition("=")[0].replace("_", "-")
        if word.startswith("--") and name not in spelled:
            near = difflib.get_close_matches(name, spelled, n=3)
            shown = ", ".join(f"--{match}" for match in near)
            hint = f"near it: {shown}" if near else "--help lists them all"
            raise ValueError(f"there is no field --{name}; {hint}")
