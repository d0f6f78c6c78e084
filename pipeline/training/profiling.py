"""A profile of a few steps: a trace for a browser, and a table of the parts' times."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pyarrow import fs

from tcmgc import storage
from tcmgc.training.spans import STEP, Recording, format_parts, span

FOLDER, TRACE, TABLE = "profile", "trace.json.gz", "parts.txt"
"""Files in the run's folder and among its artifacts in MLflow."""

_WARM = 3
"""Steps skipped before: the first ones also allocate memory and choose kernels."""


class Profiling:
    """Profiles some of a run's steps, once.

    Args:
        steps: How many; 0: none.
        folder: Folder or URI of the run.
        say: Prints a line.
    """

    def __init__(self, steps: int, folder: str, say: Callable[[str], None]) -> None:
        self.steps, self.folder, self.say = steps, folder, say
        self._seen = 0
        self._recording = Recording()
        self._profiler: torch.profiler.profile | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Context around each step."""
        if self.steps and self._seen == _WARM:
            self._profiler = torch.profiler.profile(activities=_activities(), acc_events=True)
            self._profiler.__enter__()
            self._recording.__enter__()
        with span(STEP):
            yield
        self._seen += 1
        if self._profiler is not None and self._seen == _WARM + self.steps:
            self._recording.__exit__()
            self._profiler.__exit__(None, None, None)
            self._write(self._profiler)
            self._profiler = None

    def _write(self, profiler: torch.profiler.profile) -> None:
        table = format_parts(self._recording.table())
        place = storage.join(self.folder, FOLDER)
        with tempfile.TemporaryDirectory() as made:
            profiler.export_chrome_trace(str(Path(made) / TRACE))
            (Path(made) / TABLE).write_text(table + "\n")
            system, inner = storage.resolve(place)
            system.create_dir(inner)
            fs.copy_files(made, inner, destination_filesystem=system)
        self.say(f"where the time of {self.steps} steps went:\n{table}")
        self.say(f"trace: {storage.join(place, TRACE)} (open it at https://ui.perfetto.dev)")


def _activities() -> list[torch.profiler.ProfilerActivity]:
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    return kinds


def fetch(folder: str, into: Path) -> list[Path]:
    """Copies of a run's profile files; none if no step was profiled."""
    system, inner = storage.resolve(storage.join(folder, FOLDER))
    if system.get_file_info(inner).type != fs.FileType.Directory:
        return []
    (into / FOLDER).mkdir()
    fs.copy_files(inner, str(into / FOLDER), source_filesystem=system)
    return [path for path in (into / FOLDER / TRACE, into / FOLDER / TABLE) if path.is_file()]
