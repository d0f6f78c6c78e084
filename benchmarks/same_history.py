"""Whether two runs had bit-identical steps: their losses, learning rates, norms and metrics.

``python benchmarks/same_history.py runs/ONE runs/OTHER`` compares the last checkpoints. Clock
times and speeds are ignored, and so is the validation before the first step if one of the runs
is older than that row. Exits with 1 if anything differs.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

TIMED = {"time", "train/data_wait", "train/samples_per_second"}


def history(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's last checkpoint, without values that depend on the clock."""
    found = sorted(run.glob("checkpoint_*/training.json"))
    if not found:
        raise SystemExit(f"{run} has no checkpoint with a training.json")
    rows = max((json.loads(path.read_text()) for path in found), key=lambda t: t["step"])["history"]
    return [{key: value for key, value in row.items() if key not in TIMED} for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--json", type=Path, help="file to write the result to")
    arguments = parser.parse_args()
    one, other = history(arguments.one), history(arguments.other)
    if (one[0]["step"] == 0) != (other[0]["step"] == 0):
        one, other = ([row for row in rows if row["step"] > 0] for rows in (one, other))
    differ = [(a, b) for a, b in zip(one, other, strict=False) if a != b]
    result = {"rows": [len(one), len(other)], "different": len(differ) + abs(len(one) - len(other))}
    if differ:
        (a, b), *_ = differ
        names = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
        result["first"] = {"step": a["step"], **{n: [a.get(n), b.get(n)] for n in names}}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if result["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
