"""Every failure that a run must survive, compared with the undisturbed run.

    python benchmarks/faults.py [--only NAME,NAME] [--json FILE]

Each case trains the same small model on the demo corpus through ``pipeline/train.py``, causes its
failure during the run, repeats the command if the driver itself has ended, and compares: the
loss of every step, the test split's metrics, and MLflow's record (one run, every step once).
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fault_cases import CASES, FIELDS, TOWER, Home, drained

from tcmgc.datasets import demo_corpus


@dataclass(frozen=True)
class Line:
    """The result of a case."""

    name: str
    what: str
    seconds: float
    survived: bool
    loss: float | None = None
    """Largest difference of a step's loss from the undisturbed run's."""
    metrics: float | None = None
    """Largest difference of a test metric."""
    record: str = ""
    """Problems of MLflow's record; empty if it is one run with every step once."""
    tags: str = ""
    trouble: str = ""


def compare(case: Callable[[Home], None], home: Home, base: dict[str, Any]) -> Line:
    """Run a case and compare it with the undisturbed run."""
    start = time.monotonic()
    what = str(case.__doc__).splitlines()[0]
    try:
        case(home)
        found = home.outcome()
    except Exception as error:
        trouble = f"{type(error).__name__}: {error}"
        return Line(case.__name__, what, time.monotonic() - start, False, trouble=trouble)
    faults = []
    if found["runs"] != 1:
        faults.append(f"{found['runs']} runs")
    if sorted(found["loss"]) != list(range(1, max(found["loss"]) + 1)):
        faults.append("gaps")
    if found["rows"] != len(found["loss"]):
        faults.append(f"{found['rows'] - len(found['loss'])} doubles")
    if found["status"] != "FINISHED":
        faults.append(found["status"])
    loss = max(abs(found["loss"].get(step, 1e9) - value) for step, value in base["loss"].items())
    metrics = max(abs(found["metrics"][key] - value) for key, value in base["metrics"].items())
    tags = "; ".join(f"{name}: {value}" for name, value in found["tags"].items())
    good = not faults and max(loss, metrics) <= 1e-6
    seconds = time.monotonic() - start
    return Line(case.__name__, what, seconds, good, loss, metrics, ", ".join(faults), tags)


def main() -> int:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [case.__name__ for case in CASES]
    parser.add_argument("--only", default=",".join(names), help=f"of {', '.join(names)}")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--keep", action="store_true", help="leave what the runs wrote")
    arguments = parser.parse_args()
    shared = Path(tempfile.mkdtemp(prefix="tcmgc-faults-"))
    demo_corpus.make(shared / "demo", videos=64, test=16)
    (shared / "tiny.json").write_text(json.dumps(TOWER))
    bases: dict[str, dict[str, Any]] = {}

    def base(epochs: int) -> dict[str, Any]:
        if str(epochs) not in bases:
            home = Home(shared, f"undisturbed-{epochs}")
            home.finish(home.start(train__epochs=epochs))
            bases[str(epochs)] = home.outcome()
        return bases[str(epochs)]

    lines = []
    print(f"{'':15}{'survived':9}{'loss':>9}{'metrics':>9}{'seconds':>9}  MLflow")
    for case in CASES:
        if case.__name__ not in arguments.only.split(","):
            continue
        reference = base(40 if case is drained else int(FIELDS["train.epochs"]))
        line = compare(case, Home(shared, case.__name__), reference)
        lines.append(line)
        differences = "".join(
            f"{'-' if value is None else format(value, '.1e'):>9}"
            for value in (line.loss, line.metrics)
        )
        record = line.record or line.trouble or "one run, every step once"
        print(
            f"{line.name:15}{'yes' if line.survived else 'NO':9}{differences}{line.seconds:9.0f}  "
            f"{record}{' (' + line.tags + ')' if line.tags else ''}",
            flush=True,
        )
    if arguments.json:
        Path(arguments.json).write_text(
            json.dumps([asdict(line) for line in lines], indent=2) + "\n"
        )
    if arguments.keep:
        print(f"kept: {shared}")
    else:
        shutil.rmtree(shared, ignore_errors=True)
    return 0 if all(line.survived for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
