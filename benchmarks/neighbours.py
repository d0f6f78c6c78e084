"""TC-MGC's similarity and a training step, alone and with two busy processes on the same cores.

    python benchmarks/neighbours.py [--json FILE] [--quick] [--rounds N] [--against DIR] [--spin N ...]

The bound: two busy processes and two threads each get half of the cores, so twice the time alone is a
fair share. Threads that wait by spinning use up their CPU share before there is work for them,
and a loop with a barrier after every step waits for the thread that has no share left.

Each round times every case in every worker process, first alone, then with the busy processes, one
worker after the other. It reports the least time alone and the median with neighbours. `--against`
names another checkout with this file, whose worker takes part in the same rounds; `--spin N` adds a
worker whose OpenMP threads (torch's) poll for work N times before they sleep (GOMP_SPINCOUNT).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def cases(quick: bool) -> dict[str, Callable[[], Any]]:
    """The timed functions by name."""
    import torch
    import torch.nn.functional as F

    from tcmgc.config import TcMgcHead
    from tcmgc.heads import Sizes, TcMgc, score_tiled
    from tcmgc.towers.features import TextFeatures, VideoFeatures

    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    head = TcMgc(TcMgcHead(), Sizes(512, 32, 12))
    videos, side, batch = (512, 64, 16) if quick else (10_000, 256, 64)
    text = TextFeatures(
        torch.randn(side, 512, generator=generator),
        torch.randn(side, 32, 512, generator=generator),
        torch.ones(side, 32) > 0,
    )
    seen = torch.randn(videos, 12, 512, generator=generator)
    video = VideoFeatures(seen, seen, torch.ones(videos, 12) > 0)
    with torch.no_grad():
        record = head.record(video)

    def step() -> None:
        head.zero_grad()
        scores = head.score(text[:batch], head.record(video[:batch]))
        targets = torch.arange(batch)
        F.cross_entropy(100.0 * scores.similarity, targets).backward()

    return {
        f"1 caption x {videos} records": lambda: score_tiled(head, text[:1], record, grains=False),
        f"evaluation, {side} x {side}": lambda: score_tiled(
            head, text, record[:side], grains=False
        ),
        f"training step, batch {batch}": step,
    }


def work(quick: bool) -> None:
    """Time the cases named on standard input, for :func:`main`."""
    found = cases(quick)
    for case in found.values():
        case()
    print(json.dumps(list(found)), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        found[line.rstrip("\n")]()
        print(time.perf_counter() - start, flush=True)


class Worker:
    """A process that runs cases from a checkout."""

    def __init__(self, name: str, root: Path, quick: bool, environment: dict[str, str]) -> None:
        self.name = name
        command = [sys.executable, str(root / "benchmarks" / "neighbours.py"), "--work"]
        self.process = subprocess.Popen(
            command + ["--quick"] * quick,
            env={**os.environ, "PYTHONPATH": str(root), **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.cases: list[str] = json.loads(self._answer())

    def seconds(self, case: str) -> float:
        """Time of one run."""
        assert self.process.stdin is not None
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        return float(self._answer())

    def end(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker {self.name!r} ended; see its message above")
        return line


@contextmanager
def neighbours(count: int) -> Any:
    """Start ``count`` processes that are always busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write all rows here")
    parser.add_argument("--quick", action="store_true", help="small data and two rounds")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--neighbours", type=int, default=2, metavar="N")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout")
    parser.add_argument("--spin", type=int, nargs="*", default=[], metavar="N")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.quick)
        return
    workers = [Worker("this checkout", ROOT, arguments.quick, {})]
    if arguments.against:
        root = arguments.against.resolve()
        workers.append(Worker(str(root), root, arguments.quick, {}))
    for count in arguments.spin:
        environment = {"GOMP_SPINCOUNT": str(count)}
        workers.append(Worker(f"this checkout, spin {count}", ROOT, arguments.quick, environment))
    names = workers[0].cases
    keys = [(case, worker.name) for case in names for worker in workers]
    alone: dict[tuple[str, str], list[float]] = {key: [] for key in keys}
    beside: dict[tuple[str, str], list[float]] = {key: [] for key in keys}

    def turn(into: dict[tuple[str, str], list[float]]) -> None:
        for case in names:
            for worker in workers:
                into[case, worker.name].append(worker.seconds(case))

    for _ in range(2 if arguments.quick else arguments.rounds):
        turn(alone)
        with neighbours(arguments.neighbours):
            turn(beside)
    for worker in workers:
        worker.end()
    rows = []
    for case, name in keys:
        least, median = min(alone[case, name]), statistics.median(beside[case, name])
        rows.append(
            {
                "case": case,
                "worker": name,
                "alone_seconds": least,
                "beside_seconds": median,
                "beside_vs_alone": median / least,
                "alone_vs_first_worker": least / min(alone[case, workers[0].name]),
            }
        )
        print(
            f"{case:28} {name:32} alone {least * 1e3:8.1f} ms   beside {median * 1e3:8.1f} ms   "
            f"{median / least:4.2f} times   alone {rows[-1]['alone_vs_first_worker']:.3f} of the first",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
