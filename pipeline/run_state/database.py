"""MLflow's database or server: its address, a client that waits for it, and checks."""

import contextlib
import functools
import logging
import os
import shlex
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.cli import home, python
from tcmgc import storage

PATIENCE = 60.0
"""Seconds that a call waits for a locked database or for a server that does not answer."""
AT_THE_START = 10.0
"""The same before any long work, when a wrong address is the more likely cause."""
_TEMPORARY = (
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "INTERNAL_ERROR",
    "IO_ERROR",
)
_LASTING = (
    "readonly database",
    "read-only",
    "no such table",
    "malformed",
    "not a database",
    "unable to open",
    "authentication failed",
    "does not exist",
)
"""Database errors that waiting does not resolve."""


class UnreachableError(ValueError):
    """The database stayed locked, or the server did not answer, until the timeout."""


class RefusedError(ValueError):
    """MLflow refused the call; a retry would have the same result."""


def uri() -> str:
    """``MLFLOW_TRACKING_URI``, or a database in the project's folder.

    The path of an SQLite file is relative to :func:`pipeline.cli.home`, not to the working
    directory.
    """
    chosen = os.environ.get("MLFLOW_TRACKING_URI")
    if not chosen:
        return f"sqlite:///{_quoted(home() / 'mlflow.db')}"
    path = _sqlite_path(chosen)
    if path is None:
        return chosen
    _, mark, query = chosen.partition("?")
    return f"sqlite:///{_quoted(home() / path)}{mark}{query}"


def shown(address: str | None = None) -> str:
    """:func:`uri` for messages and reports, without a password."""
    return storage.plain(address or uri())


def environment() -> dict[str, str]:
    """Variables that another process needs to use the same MLflow; for :func:`adopt`.

    A Ray that was started before this process does not pass on its variables.
    """
    own = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
    found = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    return {name: value for name, value in found.items() if name not in own} | {
        "MLFLOW_TRACKING_URI": uri()
    }


def adopt(variables: dict[str, str]) -> None:
    """Set the :func:`environment` of another process."""
    os.environ.update(variables)


def client(address: str | None = None, *, patience: float = PATIENCE) -> Any:
    """An ``MlflowClient`` whose calls wait up to ``patience`` seconds for the database or server.

    A missing database is created. Calls raise :class:`UnreachableError` and :class:`RefusedError`,
    both ValueErrors with a one-sentence message.

    Raises:
        ValueError: an invalid address.
    """
    address = address or uri()
    # MLflow's own retries, with doubling pauses, would notice a recovered server minutes late.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    # It shows a traceback of every attempt.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    _refuse_address(address)
    path = _sqlite_path(address)
    if path is not None and not Path(path).exists():
        _make(Path(path))
    made = _ask(lambda: MlflowClient(address), address, patience)
    _tidy(address)
    return _Patient(made, address, patience)


def check() -> None:
    """Make sure, before long work, that MLflow can be reached; does not create a database.

    Raises:
        ValueError: it cannot; states what to do.
    """
    address = uri()
    _refuse_address(address)
    path = _sqlite_path(address)
    if path is None:
        with _short_requests():
            client(address, patience=AT_THE_START).search_experiments(max_results=1)
    elif Path(path).exists():
        client(address).search_experiments(max_results=1)
    else:
        _refuse_folder(Path(path))


def is_there() -> bool:
    """Whether there is a server, or an existing database file."""
    path = _sqlite_path(uri())
    return path is None or Path(path).exists()


def command(*words: str) -> str:
    """An ``mlflow`` command on this database or server, for the user to type."""
    mlflow = shlex.join([python(), "-m", "mlflow", *words])
    return f"MLFLOW_TRACKING_URI={shlex.quote(shown())} {mlflow}"


def look() -> str:
    """How to see MLflow's pages: the server's address, or the command that starts one on the database."""
    if uri().startswith("http"):
        return shown()
    return shlex.join([python(), "-m", "mlflow", "ui", "--backend-store-uri", shown()])


def _refuse_address(address: str) -> None:
    scheme = address.partition("://")[0] if "://" in address else ""
    if address in ("databricks", "databricks-uc"):
        return
    if scheme in ("", "file"):
        raise ValueError(
            f"MLFLOW_TRACKING_URI is {shown(address)!r}, a folder of files, which MLflow no longer writes to; "
            "set it to sqlite:////PATH/mlflow.db or to a server's http://HOST:PORT "
            "(`mlflow migrate-filestore` moves old runs into a database), or leave it out"
        )
    if scheme.startswith("sqlite") and _sqlite_path(address) is None:
        raise ValueError(
            f"MLFLOW_TRACKING_URI is {address!r}, which names no file; "
            "expected sqlite:////PATH/mlflow.db"
        )


def _refuse_folder(path: Path) -> None:
    """Raise if no database can be created at this path."""
    there = next(parent for parent in path.parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(
            f"MLflow's database {path} cannot be made: {there} is not a folder that can be written to; "
            "set TCMGC_HOME or MLFLOW_TRACKING_URI"
        )


def _sqlite_path(address: str) -> str | None:
    """The file of an SQLite address; None for any other."""
    if not address.startswith("sqlite:///"):
        return None
    path = address.removeprefix("sqlite:///").partition("?")[0]
    return unquote(path) if path and path != ":memory:" else None


def _quoted(path: Path) -> str:
    """A path quoted for an address: SQLAlchemy reads ``%41`` as ``A``, and ``?`` as the path's end."""
    return str(path).replace("%", "%25").replace("?", "%3F")


def _tidy(address: str) -> None:
    """Remove the empty folders that MLflow creates for an address, in which it does not decode ``%25``."""
    path = address.removeprefix("sqlite:///").partition("?")[0]
    if address.startswith("sqlite:///") and unquote(path) != path:
        with contextlib.suppress(OSError):
            os.removedirs(Path(path).parent)


def _make(path: Path) -> None:
    """Create MLflow's tables in a temporary file and move it into place, unless one exists by then.

    Processes that create the tables of one file at the same time would corrupt it.
    """
    _refuse_folder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"MLflow's database {path} cannot be made: {error}") from error
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        fresh = f"sqlite:///{_quoted(aside)}"
        maker = _ask(lambda: MlflowClient(fresh), fresh, PATIENCE)
        _ask(lambda: maker.search_experiments(max_results=1), fresh, PATIENCE)
        with contextlib.suppress(FileExistsError):
            try:
                os.link(aside, path)
            except OSError:  # a file system without hard links
                if not path.exists():
                    os.rename(aside, path)
    finally:
        aside.unlink(missing_ok=True)
        _tidy(fresh)


class _Patient:
    """An ``MlflowClient`` that retries calls after temporary errors."""

    def __init__(self, made: MlflowClient, address: str, patience: float) -> None:
        self._made, self._address, self._patience = made, address, patience

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._made, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            ask = functools.partial(value, *arguments, **named)
            return _ask(ask, self._address, self._patience)

        return call


def _ask(call: Callable[[], Any], address: str, patience: float) -> Any:
    until = time.monotonic() + patience
    pause = 0.2
    while True:
        try:
            return call()
        except Exception as error:
            if not _is_mlflows(error):
                raise
            if not is_temporary(error):
                raise RefusedError(_no(address, error)) from error
            if time.monotonic() + pause > until:
                raise UnreachableError(_away(address, error)) from error
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def _away(address: str, error: Exception) -> str:
    if "locked" in str(error):
        return (
            f"MLflow's database {shown(address)} is locked by another process; "
            "wait until that is done or stop it"
        )
    text = str(error)
    known = ("Connection refused", "timed out", "Name or service not known", "Failed to resolve")
    why = next((words for words in known if words in text), _first(error))
    return (
        f"MLflow at {shown(address)} does not answer ({why}); start its server, or set "
        "MLFLOW_TRACKING_URI to where it is"
    )


def _no(address: str, error: Exception) -> str:
    text = str(error)
    if "unsupported URI" in text:
        return (
            f"MLFLOW_TRACKING_URI is {shown(address)!r}, which MLflow has no store for; expected "
            "http://HOST:PORT, https://, sqlite:////PATH/mlflow.db, postgresql:// or mysql://"
        )
    if address.startswith("http") and "failed with error code 404" in text:
        return (
            f"MLFLOW_TRACKING_URI is {shown(address)}, and what answers there is not MLflow (404)"
        )
    if isinstance(error, ImportError):
        return (
            f"MLflow at {shown(address)} needs a driver that is not installed: "
            f"pip install {error.name}"
        )
    return f"MLflow at {shown(address)}: {_first(error)}"


def is_temporary(error: Exception) -> bool:
    """Whether a retry may succeed after this error: a locked database, an unavailable server."""
    text = str(error).lower()
    if any(lasting in text for lasting in _LASTING):
        return False
    if isinstance(error, MlflowException):
        return error.error_code in _TEMPORARY
    return isinstance(error, OSError) or type(error).__name__ == "OperationalError"


def _is_mlflows(error: Exception) -> bool:
    """Whether it came from MLflow, its database driver or the network; anything else is our bug."""
    return isinstance(error, MlflowException | OSError | ImportError) or type(
        error
    ).__module__.startswith(("sqlalchemy", "sqlite3", "requests", "urllib3", "alembic"))


def _first(error: Exception) -> str:
    """An error's first line, truncated to fit in a sentence."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= 200 else f"{line[:197]}..."


@contextlib.contextmanager
def _short_requests() -> Iterator[None]:
    """Let a request time out after a few seconds: an address may silently drop all packets."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ.get(name)
    os.environ[name] = str(int(AT_THE_START))
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
