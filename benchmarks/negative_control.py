"""Negative control: does the demo learn from its pairs? The same training with shuffled captions.

``python benchmarks/negative_control.py [--json FILE]`` trains the demo recipe twice, on the demo
corpus and on one with captions shuffled among training videos (the test split keeps its own),
and prints both rows of text-to-video recall. Shuffled, R@1 must be at chance: 0.5 % of 200.
The exit code is 1 if it is 3 % or more. It takes twice as long as the demo's training.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro

from pipeline import cli, train
from tcmgc.datasets import demo_corpus

CHANCE_LIMIT = 3.0


def main(json_file: str | None = None, only_shuffled: bool = False) -> int:
    """Train on both corpora and compare.

    Args:
        json_file: File for the rows.
        only_shuffled: Skip training on the unchanged corpus.
    """
    rows = []
    for shuffled in [True] if only_shuffled else [False, True]:
        name = "demo-shuffled" if shuffled else "demo"
        root = demo_corpus.make(cli.resolve(f"data/{name}"), shuffle_captions=shuffled)
        train.main(["demo", "--data.root", str(root), "--run.name", f"control-{name}"])
        result = json.loads(Path(cli.resolve(f"runs/control-{name}/result.json")).read_text())
        rows.append(
            {
                "case": name,
                **{key: result["metrics"][f"t2v/{key}"] for key in ("R1", "R5", "R10", "MdR")},
            }
        )
    print(f"\n{'corpus':<16}" + "".join(f"{key:>8}" for key in rows[0] if key != "case"))
    for row in rows:
        print(
            f"{row['case']:<16}"
            + "".join(f"{value:8.1f}" for key, value in row.items() if key != "case")
        )
    if json_file:
        Path(json_file).write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    return 0 if rows[-1]["R1"] < CHANCE_LIMIT else 1


if __name__ == "__main__":
    cli.run(lambda: tyro.cli(main))
