"""A sweep killed half-way and rerun: no finished trial is repeated, and the same one is best.

python benchmarks/tune_resume.py [--frozen] [--space SPACE] [--seeds N]

The sweep runs twice, once undisturbed. The other is killed with SIGKILL when half of its trials
have ended, and its command is run again.
"""

import argparse
import json
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from sweeping import prepare, sweep

from pipeline import tracking


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--space", default="residual")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    words = ["--frozen"] if arguments.frozen else []
    words += ["--seeds", str(arguments.seeds)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        words = [*prepare(folder), *words]
        undisturbed = finish(sweep(folder, arguments.space, *words, "--run.folder", "whole"))
        killed = kill_half_way(sweep(folder, arguments.space, *words, "--run.folder", "killed"))
        before = trials(folder / "killed")
        time.sleep(5)  # Ray's processes notice that the driver has ended
        again = finish(sweep(folder, arguments.space, *words, "--run.folder", "killed"))
        after = trials(folder / "killed")
    redone = [name for name, end in before.items() if after[name] != end]
    result = {
        "trials that had ended when the sweep was killed": len(before),
        "of them, redone": redone,
        "trials in the end": len(after),
        "the same best": best(undisturbed) == best(again),
        "best": best(again),
        "the same table": table(undisturbed) == table(again),
    }
    print(json.dumps(result, indent=2))
    if redone or not result["the same best"] or not killed:
        raise SystemExit(1)


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(said)
    return said


def kill_half_way(process: subprocess.Popen[str]) -> bool:
    assert process.stdout
    for line in process.stdout:
        found = re.match(r"\[(\d+) of (\d+)\]", line)
        if found and 2 * int(found[1]) >= int(found[2]):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
    return False


def trials(folder: Path) -> dict[str, int]:
    """When each finished trial below the folder ended, by its own folder."""
    runs = tracking.find_runs("tags.kind = 'trial' and tags.status = 'finished'")
    return {
        run.data.tags["folder"]: run.info.end_time
        for run in runs
        if run.data.tags["folder"].startswith(str(folder))
    }


def best(said: str) -> str:
    return (
        next(line for line in said.splitlines() if line.startswith("best:")).split(":")[1].strip()
    )


def table(said: str) -> list[str]:
    lines = said.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("variant "))
    return lines[start : lines.index("", start)]


if __name__ == "__main__":
    main()
