"""Shared by all tests: jaxtyping at run time, one Ray for the whole session, a small corpus."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before anything imports the library: shapes are checked at run time here and nowhere else.
from jaxtyping import install_import_hook

hook = install_import_hook("tcmgc", "beartype.beartype")

import buckets
import golden_files
import pytest
import torch

torch.set_num_threads(1)


RAY = "ray"
"""Tests that share the session's Ray; the slowest to start, so that they come first."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups for pytest-xdist: all tests that share one Ray, else those of a file.

    A group runs in one process, so that Ray is started once and a file's fixtures are made once.
    """
    for item in items:
        with_ray = "cluster" in getattr(item, "fixturenames", ())
        group = RAY if with_ray else Path(str(item.path)).stem
        item.add_marker(pytest.mark.xdist_group(group))
        item.stash[FIRST] = not with_ray
    items.sort(key=lambda item: item.stash[FIRST])


FIRST = pytest.StashKey[bool]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what is not tested for want of reference numbers."""
    if line := golden_files.left_out():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What relative paths are relative to, for everything that tests run."""
    folder = tmp_path_factory.mktemp("home")
    os.environ["TCMGC_HOME"] = str(folder)
    yield folder
    del os.environ["TCMGC_HOME"]


@pytest.fixture(scope="session")
def cluster(home: Path) -> Iterator[None]:
    """Ray, started once for all tests."""
    import ray

    from pipeline.cluster import placement as cluster

    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"
    cluster.connect()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def corpus(home: Path) -> Path:
    """A small demo corpus: 64 videos, 16 of them for the test."""
    from tcmgc.datasets import demo_corpus

    return Path(demo_corpus.make(home / "data/demo", videos=64, test=16))


@pytest.fixture(scope="session", params=list(buckets.SERVERS))
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    """A URI that begins an empty store; tests take folders of their own below it."""
    with buckets.SERVERS[request.param]() as root:
        yield root


@pytest.fixture(scope="session")
def tower(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An open_clip JSON of the smallest towers that do their work."""
    import json

    values = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 1,
        },
    }
    path = tmp_path_factory.mktemp("towers") / "tiny.json"
    path.write_text(json.dumps(values))
    return str(path)


@pytest.fixture(scope="session")
def quick(corpus: Path, tower: str) -> list[str]:
    """Words of a command line that make the demo recipe take seconds."""
    fields = {
        "data.root": corpus,
        "data.val-videos": 16,
        "data.max-frames": 4,
        "towers.name": tower,
        "train.batch-size": 16,
        "train.epochs": 2,
    }
    return [word for name, value in fields.items() for word in (f"--{name}", str(value))]
