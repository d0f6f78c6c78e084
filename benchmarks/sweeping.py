"""Environment for an isolated sweep: its own folder, a small corpus, a one-layer tower."""

import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tcmgc.datasets import demo_corpus

CHECKOUT = Path(__file__).resolve().parents[1]
TOWER = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 32, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def prepare(folder: Path) -> list[str]:
    """Write a corpus of 64 videos and a tower to a folder; return the fields that name them."""
    demo_corpus.make(folder / "data/demo", videos=64, test=16)
    (folder / "tiny.json").write_text(json.dumps(TOWER))
    return [
        *("--towers.name", str(folder / "tiny.json"), "--data.val-videos", "12"),
        *("--train.batch-size", "16", "--temporal.layers", "1"),
    ]


def sweep(folder: Path, space: str, *words: str) -> subprocess.Popen[str]:
    """Start `pipeline/tune.py SPACE demo …` with all output below the folder."""
    return command(folder, "tune.py", space, "demo", *words)


def command(folder: Path, script: str, *words: str) -> subprocess.Popen[str]:
    """Start a command of the pipeline with all output below the folder."""
    os.environ["TCMGC_HOME"] = str(folder)
    line = [sys.executable, str(CHECKOUT / "pipeline" / script), *words]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=CHECKOUT
    )
