import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.run_state import lock, run_folder


def foreign(beat: int = 0) -> dict[str, Any]:
    return {"owner": "x", "host": "elsewhere", "boot": "b", "pid": 7, "started": 1.0, "beat": beat}


@contextmanager
def beating(folder: str) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(0.05):
            count += 1
            run_folder.write(folder, lock.NAME, foreign(count))

    run_folder.write(folder, lock.NAME, foreign())
    thread = threading.Thread(target=beat)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_the_folder_is_free_again_afterwards(tmp_path: Path):
    folder = str(tmp_path / "run")
    for _ in range(2):
        with lock.held(folder):
            assert (tmp_path / "run" / lock.NAME).is_file()
        assert not (tmp_path / "run" / lock.NAME).exists()


def test_a_living_owner_on_this_machine_is_named_at_once(tmp_path: Path):
    folder = str(tmp_path)
    start = time.monotonic()
    with (
        lock.held(folder),
        pytest.raises(ValueError, match=r"process \d+ on .*--run.name"),
        lock.held(folder, patience=60.0),
    ):
        pass
    assert time.monotonic() - start < 10


def test_an_owner_that_was_killed_does_not_leave_it_stuck(tmp_path: Path):
    code = "import os, sys; from pipeline.run_state import lock\nwith lock.held(sys.argv[1]): os._exit(9)"
    root = Path(lock.__file__).resolve().parents[2]
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
    assert died.returncode == 9
    assert (tmp_path / lock.NAME).is_file()
    start = time.monotonic()
    with lock.held(str(tmp_path), patience=60.0):
        assert time.monotonic() - start < 10


def test_an_owner_elsewhere_that_shows_no_sign_of_life_is_followed(tmp_path: Path):
    run_folder.write(str(tmp_path), lock.NAME, foreign())
    with lock.held(str(tmp_path), patience=0.3):
        assert json.loads((tmp_path / lock.NAME).read_text())["owner"] != "x"


def test_an_owner_elsewhere_that_lives_keeps_it(tmp_path: Path):
    folder = str(tmp_path)
    with (
        beating(folder),
        pytest.raises(ValueError, match="process 7 on elsewhere"),
        lock.held(folder),
    ):
        pass


def test_a_lock_whose_owner_died_before_it_wrote_its_name(tmp_path: Path):
    (tmp_path / lock.NAME).touch()
    with lock.held(str(tmp_path), patience=0.3):
        pass


def _lose(folder: str) -> None:
    run_folder.write(folder, lock.NAME, foreign())
    for _ in range(200):
        time.sleep(0.05)


def test_who_loses_the_folder_stops(tmp_path: Path):
    folder = str(tmp_path)
    # A shell starts what it puts in the background with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), lock.held(folder, beat=0.05):
        _lose(folder)
    # The other one's lock stays.
    assert json.loads((tmp_path / lock.NAME).read_text())["owner"] == "x"
