"""Search by exact TC-MGC scores and in two stages, compared with alternatives that a user might choose.

    python benchmarks/search.py [--windows 100000] [--queries 50] [--folder DIR] [--json FILE] [--others]
    python benchmarks/search.py --demo INDEX [--json FILE]

The first form makes an index of synthetic windows (12 frames, 512 channels: realistic sizes and times,
meaningless results; ``--distinct N`` repeats records after N, for indexes that would take hours to
make) and measures one query at a time: exact over everything, in two stages, adding 100 videos.
``--others`` adds brute force in NumPy over mean vectors, FAISS flat and HNSW over frame vectors with
max, and LanceDB's multi-vector search (``pip install lancedb pylance``); their recall is also relative to the
exact TC-MGC scores.

The second uses an index of encoded clips with a trained model, and measures the loss by candidates and float16.
"""

import argparse
import json
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import made_up_index
import numpy as np
import torch
import torch.nn.functional as F

from tcmgc.search import Index, calibration, check
from tcmgc.search.query import CANDIDATES, Filters, Run

TOP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--distinct", type=int, default=0)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--folder", help="where the index is made, or is from a run before")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--demo", help="an index of encoded clips with a trained model")
    parser.add_argument("--json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.demo:
        found = demo(given.demo)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            found = made_up(given, Path(given.folder or scratch))
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")


def made_up(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    name = f"made-up-{given.windows}"
    begun = time.perf_counter()
    writer = made_up_index.build(folder / name, given.windows, distinct=given.distinct)
    print(f"{given.windows} made-up windows, ready after {time.perf_counter() - begun:.0f} s")
    size = sum(part.bytes for part in writer.version.segments) / given.windows
    found: dict[str, Any] = {"windows": given.windows, "bytes a window": round(size)}
    print(f"bytes a window, float16: {size:.0f}")
    index = Index.open(str(folder / name))
    text = made_up_index.draw_texts(given.queries)
    index.encoder  # noqa: B018  loads it
    before = _memory()
    exact, times = _timed(
        lambda at: index.scores(text[at : at + 1])[0].numpy(), min(given.queries, 10)
    )
    found["exact"] = _say(
        "exact, one query", times, 1.0, f", {_memory() - before:.0f} MB above the mapped index"
    )
    found |= _two_stages(index, text, exact)
    found["add 100"] = _add(folder / name)
    if given.others:
        found |= _others(given, folder, index, text, exact)
    return found


def _two_stages(index: Index, text: Any, exact: list[np.ndarray]) -> dict[str, Any]:
    allowed = np.flatnonzero(index.files_allowed(Filters()) >= 0)
    results = {}
    for count in (CANDIDATES // 4, CANDIDATES, 4 * CANDIDATES):
        run = Run(index, allowed, count)

        def once(at: int, run: Run = run) -> np.ndarray:
            windows = run.near(text[at : at + 1])
            scores = index.scores(text[at : at + 1], windows)[0].numpy()
            return windows[np.argsort(-scores)[:TOP]]

        once(0)
        tops, times = _timed(once, len(text))
        name = f"two stages, {count} candidates"
        results[name] = _say(name, times, _recall(tops, exact))
    return results


def _add(folder: Path) -> float:
    """Seconds for adding 100 videos in addition to encoding them: writing, versions, codes."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "index")
        shutil.copytree(folder, copy, copy_function=_link)
        from tcmgc.search import Writer
        from tcmgc.search.files import FileRow
        from tcmgc.search.place import Place

        index = Index.open(str(copy))
        ready = list(made_up_index.rows(index.encoder, 100, 77, index.version.settings))
        begun, used = time.perf_counter(), time.process_time()
        writer = Writer.open(Place(str(copy)))
        for key, one in ready:
            writer.add(key, one)
            writer.put(FileRow(path=f"/new/{key.hex()}.mp4", size=1, modified=1, key=key))
        writer.commit()
        writer.compact()
        writer.encode()
        took, used = time.perf_counter() - begun, time.process_time() - used
    print(f"adding 100 videos, over encoding them: {took:.2f} s, CPU {used:.2f} s")
    return round(took, 3)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _others(
    given: argparse.Namespace, folder: Path, index: Index, text: Any, exact: list[np.ndarray]
) -> dict[str, Any]:
    import faiss

    faiss.omp_set_num_threads(given.threads)
    steps = range(0, given.windows, 1024)
    frames = np.concatenate(
        [
            F.normalize(
                made_up_index.draw_videos(min(1024, given.windows - s), s // 1024).encoded, dim=-1
            ).numpy()
            for s in steps
        ]
    )
    mean = frames.mean(1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    queries = F.normalize(text.sentence, dim=-1).numpy()
    words = F.normalize(text.words, dim=-1).numpy()
    found: dict[str, Any] = {}

    def measure(name: str, once: Callable[[int], np.ndarray], made: str = "") -> None:
        once(0)
        tops, times = _timed(once, len(text))
        found[name] = _say(name, times, _recall(tops, exact), made)

    def top_of(scores: np.ndarray) -> np.ndarray:
        near = np.argpartition(-scores, TOP)[:TOP]
        return near[np.argsort(-scores[near])]

    measure("NumPy, mean vectors", lambda at: top_of(mean @ queries[at]))
    each = frames.reshape(-1, frames.shape[-1])
    for name, made in (("Flat", "FAISS flat"), ("HNSW32", "FAISS HNSW")):
        begun = time.perf_counter()
        searched = faiss.index_factory(each.shape[1], name, faiss.METRIC_INNER_PRODUCT)
        searched.add(each)
        took = f", made in {time.perf_counter() - begun:.0f} s"
        if name == "HNSW32":
            searched.hnsw.efSearch = 256

        def once(at: int, searched: Any = searched) -> np.ndarray:
            _, places = searched.search(queries[at : at + 1], 20 * TOP)
            return np.array(list(dict.fromkeys((places[0] // frames.shape[1]).tolist()))[:TOP])

        measure(f"{made}, frame vectors, max", once, took)
    found |= _lance(given, folder, frames, queries, words, text, measure)
    return found


def _lance(
    given: Any,
    folder: Path,
    frames: np.ndarray,
    queries: np.ndarray,
    words: np.ndarray,
    text: Any,
    measure: Any,
) -> dict[str, Any]:
    try:
        import lancedb
        import pyarrow as pa
    except ImportError:
        print("LanceDB is not installed: left out")
        return {"LanceDB": "not installed"}
    database = lancedb.connect(str(folder / "lancedb"))
    dim = frames.shape[-1]
    vector = pa.list_(pa.list_(pa.float32(), dim))

    def batches() -> Any:
        for start in range(0, len(frames), 4096):
            part = frames[start : start + 4096]
            flat = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), dim)
            offsets = pa.array(
                np.arange(0, part.shape[0] * part.shape[1] + 1, part.shape[1], dtype=np.int32)
            )
            yield pa.record_batch(
                {
                    "id": np.arange(start, start + len(part)),
                    "vector": pa.ListArray.from_arrays(offsets, flat),
                }
            )

    schema = pa.schema({"id": pa.int64(), "vector": vector})
    table = database.create_table("windows", batches(), schema=schema, mode="overwrite")
    begun = time.perf_counter()
    table.create_index(metric="cosine", vector_column_name="vector")
    took = f", index made in {time.perf_counter() - begun:.0f} s"

    def ask(query: np.ndarray) -> np.ndarray:
        rows = table.search(query).distance_type("cosine").limit(TOP).select(["id"]).to_arrow()
        return rows["id"].to_numpy()

    measure("LanceDB multi-vector, sentence", lambda at: ask(queries[at : at + 1]), took)
    lengths = text.word_mask.sum(1).tolist()
    measure("LanceDB multi-vector, words", lambda at: ask(words[at, : lengths[at]]), took)
    return {}


def demo(path: str) -> dict[str, Any]:
    """The loss by candidates and float16 on encoded clips."""
    index = Index.open(path)
    queries = calibration.queries(128)
    counts = [count for count in (25, 50, 100, 200, 400) if count < len(index)]
    found: dict[str, Any] = {"windows": len(index)}
    results, _ = check.recall(index, queries, counts)
    for one in results:
        share = 100 * one.candidates / len(index)
        print(
            f"{one.candidates} candidates ({share:.1f} % of {len(index)}): recall@{TOP} {one.recall:.4f}"
        )
        found[f"recall, {one.candidates} candidates"] = one.recall
    found["float16"] = half(index, queries)
    return found


def half(index: Index, queries: list[str]) -> dict[str, float]:
    """How ranks change if records are rounded: the videos are encoded again in float32."""
    encoder = index.encoder
    text = encoder.texts(queries)
    stored = index.scores(text).numpy()
    whole = []
    numbers = range(len(index.file_of))
    with torch.inference_mode():
        for start in range(0, len(index.file_of), 64):
            frames = []
            for number in numbers[start : start + 64]:
                segment, row = index.at(number)
                path = index.file(int(index.file_of[number])).path
                frames.append(encoder.sample(path, tuple(segment.spans[row].tolist())))
            record = encoder.head.record(encoder.video(frames))
            found = encoder.head.score(text, record, encoder.model.scale())
            whole.append(found.similarity.numpy())
    full = np.concatenate(whole, 1)
    tops = [np.argsort(-row)[:TOP] for row in stored]
    best = [np.argsort(-row)[:TOP] for row in full]
    first = float(np.mean([a[0] == b[0] for a, b in zip(tops, best, strict=True)]))
    result = {
        "largest difference": float(np.abs(stored - full).max()),
        "recall@10 of float32": _recall(tops, list(full)),
        "same first": first,
    }
    print(f"float16 records against float32: {result}")
    return result


Times = list[tuple[float, float]]
"""Seconds by the clock, and of all processors that this process had: what others leave shows in the first only."""


def _timed(once: Callable[[int], Any], count: int) -> tuple[list[Any], Times]:
    results, times = [], []
    for at in range(count):
        begun = time.perf_counter(), time.process_time()
        results.append(once(at))
        times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    return results, times


def _recall(tops: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """Share of the best ten by exact scores; a window with the tenth's score is as good as the tenth."""
    found = []
    for top, scores in zip(tops, exact, strict=False):
        tenth = np.partition(scores, len(scores) - TOP)[len(scores) - TOP]
        found.append((scores[top] >= tenth - 1e-5).sum() / TOP)
    return float(np.mean(found))


def _say(name: str, times: Times, recall: float, more: str = "") -> dict[str, float]:
    clock, processor = zip(*times, strict=True)
    median, late = statistics.median(clock), float(np.quantile(clock, 0.95))
    cpu = statistics.median(processor)
    print(
        f"{name}: median {1e3 * median:.1f} ms, p95 {1e3 * late:.1f} ms, CPU {1e3 * cpu:.1f} ms, recall@{TOP} {recall:.4f}{more}",
        flush=True,
    )
    return {
        "median ms": round(1e3 * median, 2),
        "p95 ms": round(1e3 * late, 2),
        "CPU ms": round(1e3 * cpu, 2),
        "recall": round(recall, 4),
    }


def _memory() -> float:
    """MB of the process's memory that is not backed by a file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
