"""Ray's overhead on a trial of a sweep: from its start to its first step, and after its last.

python benchmarks/tune_overhead.py [--json FILE]

Four short trials of `residual` with two seeds, one at a time; times are from MLflow. The first trial
also starts the process that drives all of them.
"""

import argparse
import itertools
import json
import statistics
import tempfile
from pathlib import Path

from sweeping import prepare, sweep

from pipeline import tracking


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        process = sweep(folder, "residual", *prepare(folder), "--seeds", "2")
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(said)
        result = measure()
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def measure() -> dict[str, list[float] | float]:
    client = tracking.client()
    trials = tracking.find_runs("tags.kind = 'trial'")[::-1]
    before, training, after = [], [], []
    for run in trials:
        steps = client.get_metric_history(run.info.run_id, "train/loss")
        times = sorted(metric.timestamp / 1000 for metric in steps)
        done = client.get_metric_history(run.info.run_id, "val/SumR")[-1].timestamp / 1000
        start, end = run.info.start_time / 1000, run.info.end_time / 1000
        step = statistics.median(b - a for a, b in itertools.pairwise(times))
        before.append(times[0] - step - start)
        training.append(done - times[0] + step)
        after.append(end - done)
    starts = [run.info.start_time / 1000 for run in trials]
    whole = [b - a for a, b in itertools.pairwise(starts)]
    return {
        "seconds from a trial's start to its first step": [round(one, 2) for one in before],
        "seconds of training and validation": [round(one, 2) for one in training],
        "seconds from the last validation to the trial's end": [round(one, 2) for one in after],
        "seconds from one trial's start to the next": [round(one, 2) for one in whole],
        "overhead a trial, median": round(
            statistics.median(w - t for w, t in zip(whole, training, strict=False)), 2
        ),
    }


if __name__ == "__main__":
    main()
