"""Storage of an index's rows: mapped segments and Parquet, as here, or Lance.

    python benchmarks/index_storage.py [--windows 20000] [--folder DIR] [--json FILE]      (needs: pip install pylance)

Rows have the size of ViT-B/32's TC-MGC record in float16 (24.5 KB), with a path and a time, and random
content. Both are measured on an index's operations: all records once (exact scores), some hundred at random
(candidates), 100 more, 100 fewer, and reading while another thread adds. The alternative of storing only
frame features, half as large, and collapsing candidates' records at query time is timed, too.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
import torch

from tcmgc.config import TcMgcHead
from tcmgc.heads import Sizes, TcMgc, record_layout
from tcmgc.search import segment
from tcmgc.search.segment import Rows, Segment
from tcmgc.towers.features import VideoFeatures

FRAMES, DIM, STEP, TIMES = 12, 512, 2048, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=20_000)
    parser.add_argument("--folder")
    parser.add_argument("--json")
    given = parser.parse_args()
    head = TcMgc(TcMgcHead(), Sizes(DIM, 32, FRAMES)).eval()
    numbers = record_layout(head, FRAMES).numbers
    found: dict[str, Any] = {"windows": given.windows, "bytes a record": 2 * numbers}
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        found["mapped segments"] = _ask(Mapped(Path(scratch, "mapped"), numbers), given.windows)
        try:
            import lance  # noqa: F401
        except ImportError:
            print("pylance is not installed: Lance is left out")
        else:
            found["Lance"] = _ask(Lance(Path(scratch, "lance"), numbers), given.windows)
    found["300 frame features collapsed, ms"] = _collapse(head)
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")


def records(numbers: int, seed: int) -> np.ndarray:
    """Random rows."""
    return (
        np.random.default_rng(seed).standard_normal((STEP, numbers), np.float32).astype(np.float16)
    )


class Mapped:
    """Segments of :mod:`tcmgc.search.segment`."""

    def __init__(self, folder: Path, numbers: int) -> None:
        folder.mkdir()
        self.folder, self.numbers, self.segments = folder, numbers, []
        self.dead: set[int] = set()

    def add(self, count: int, seed: int) -> None:
        """Add a segment."""
        rows = records(self.numbers, seed)[:count]
        tensors = {
            "records": rows,
            "vectors": rows[:, : 3 * DIM].reshape(-1, 3, DIM),
            "key": np.random.default_rng(seed).integers(0, 255, (count, 16), np.uint8),
            "span": np.zeros((count, 2)),
            "times": np.zeros((count, FRAMES), np.float32),
        }
        path = self.folder / f"{len(self.segments)}.safetensors"
        segment.write(path, Rows(tensors, (b"",) * count))
        self.segments.append(Segment(path.name, path, count, path.stat().st_size))

    def all(self) -> float:
        """Touch every record."""
        return sum(float(one.records().view(torch.int16).amax()) for one in self.segments)

    def some(self, places: np.ndarray) -> int:
        """Copies of records."""
        which, rows = places // STEP, places % STEP
        parts = [
            self.segments[w].records(torch.from_numpy(rows[which == w])) for w in np.unique(which)
        ]
        return sum(map(len, parts))

    def remove(self, count: int) -> None:
        """Remove rows: their video is removed from the table of files."""
        self.dead.update(range(count))


class Lance:
    """A Lance data set."""

    def __init__(self, folder: Path, numbers: int) -> None:
        self.path, self.numbers, self.count = str(folder), numbers, 0

    def add(self, count: int, seed: int) -> None:
        """Append rows."""
        import lance

        rows = records(self.numbers, seed)[:count]
        flat = pa.array(rows.reshape(-1))
        table = pa.table(
            {
                "id": np.arange(self.count, self.count + count),
                "record": pa.FixedSizeListArray.from_arrays(flat, self.numbers),
            }
        )
        mode = "append" if self.count else "create"
        lance.write_dataset(table, self.path, mode=mode)
        self.count += count
        self.data = lance.dataset(self.path)

    def all(self) -> float:
        """Read every record."""
        batches = self.data.to_batches(columns=["record"], batch_size=1024)
        return sum(
            float(batch["record"].flatten().to_numpy().view(np.int16).max()) for batch in batches
        )

    def some(self, places: np.ndarray) -> int:
        """Take rows."""
        return self.data.take(places.tolist(), columns=["record"]).num_rows

    def remove(self, count: int) -> None:
        """Delete rows."""
        self.data.delete(f"id < {count}")


def _ask(store: Any, windows: int) -> dict[str, float]:
    name = type(store).__name__
    found: dict[str, float] = {}

    def note(what: str, run: Callable[[], Any], times: int = 1) -> None:
        took = []
        for _ in range(times):
            begun = time.perf_counter()
            run()
            took.append(time.perf_counter() - begun)
        found[f"{what}, ms"] = round(1e3 * statistics.median(took), 2)
        print(f"{name}: {what}: {found[f'{what}, ms']} ms", flush=True)

    draw = np.random.default_rng(1)
    note("write all", lambda: [store.add(STEP, seed) for seed in range(windows // STEP)])
    note("read all", store.all, 3)
    for count in (300, 2000):
        places = lambda count=count: np.sort(draw.integers(0, windows // STEP * STEP, count))  # noqa: E731
        note(f"take {count}", lambda places=places: store.some(places()), TIMES)
    note("add 100", lambda: store.add(100, 99))
    note("remove 100", lambda: store.remove(100))
    stop, failures, reads = threading.Event(), 0, 0

    def keep_adding() -> None:
        seed = 100
        while not stop.is_set():
            store.add(100, seed)
            seed += 1

    thread = threading.Thread(target=keep_adding)
    thread.start()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        try:
            store.some(np.sort(draw.integers(0, windows // STEP * STEP, 300)))
            reads += 1
        except Exception as error:
            failures += 1
            print(f"{name}: {error}")
    stop.set()
    thread.join()
    found["reads while adding"], found["of which failed"] = reads, failures
    print(f"{name}: {reads} reads while another thread added, {failures} failed")
    if name == "Lance":
        shutil.rmtree(store.path)
    return found


@torch.inference_mode()
def _collapse(head: TcMgc) -> float:
    seen = torch.randn(300, FRAMES, DIM)
    video = VideoFeatures(seen, seen, torch.ones(300, FRAMES, dtype=torch.bool))
    took = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        head.record(video)
        took.append(time.perf_counter() - begun)
    best = round(1e3 * min(took), 1)
    print(
        f"collapsing 300 windows' frame features to records: {best} ms at best, for half the bytes"
    )
    return best


if __name__ == "__main__":
    main()
