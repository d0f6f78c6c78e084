"""A comparison killed half-way and rerun: no finished trial is repeated, and the table is the same.

python benchmarks/compare_resume.py [--methods xpool,clip4clip_meanp] [--seeds N] [--json FILE]

The comparison runs twice on a small corpus, whose one-layer tower is too shallow for methods that
initialise from four layers. One run is undisturbed. The other is killed with SIGKILL when
half of its trials have ended, and its command is run again.
"""

import argparse
import csv
import json
import subprocess
import tempfile
import time
from pathlib import Path

from sweeping import command, prepare
from tune_resume import finish, kill_half_way

# Columns that are measured again and do not depend on the trials.
TIMED = ("encoding_ms", "similarity_ms", "step_ms", "step_mb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="xpool,clip4clip_meanp")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        words = ["--methods", arguments.methods, "--seeds", str(arguments.seeds)]
        words = [*prepare(folder), *words]

        def compare(name: str) -> subprocess.Popen[str]:
            more = ["--run.folder", name, "--report", f"report-{name}"]
            return command(folder, "compare.py", "demo", *words, *more)

        finish(compare("whole"))
        killed = kill_half_way(compare("killed"))
        before = ended(folder / "killed")
        time.sleep(5)  # Ray's processes notice that the driver has ended
        finish(compare("killed"))
        after = ended(folder / "killed")
        tables = [table(folder / f"report-{name}/compare-demo.csv") for name in ("whole", "killed")]
    redone = [name for name, moment in before.items() if after[name] != moment]
    result = {
        "trials that had ended when the comparison was killed": len(before),
        "of them, redone": redone,
        "trials in the end": len(after),
        "the same table": tables[0] == tables[1],
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if redone or not killed or not result["the same table"]:
        raise SystemExit(1)


def ended(folder: Path) -> dict[str, float]:
    """When each trial's result was written, by the trial's folder."""
    files = folder.glob("compare-*/trials/*/result.json")
    return {path.parent.name: path.stat().st_mtime for path in files}


def table(file: Path) -> list[dict[str, str]]:
    """The rows without what depends on the clock."""
    rows = list(csv.DictReader(file.open()))
    return [{key: value for key, value in row.items() if key not in TIMED} for row in rows]


if __name__ == "__main__":
    main()
