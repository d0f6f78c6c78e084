"""TC-MGC's similarity: collapsed, compared with its two matrix products, the literal equations and peers.

    python benchmarks/similarity.py [--json FILE] [--quick] [--only CASE ...]
    python benchmarks/similarity.py --methods all [--size 1000]

The bound: a pair of 32 words x 12 frames x 512 needs 0.81 MFLOP in two matrix products (queries
by keys, columns by outputs), and about 0.06 in addition, on 3 KB of their results. So the products are the
bound: the column vs_gemm is the ratio to these products in torch, 100 GFLOP/s per core on the
processor below. Those of tcmgc/native are faster, since their operands stay in the L2 cache, which
compensates for most of the remaining work.

Figures of one complete run, two otherwise idle cores of an AMD EPYC with AVX-512 and its bfloat16
instructions, 2026-11-25. "compiled" is the C++, "eager" torch without any compiled code. Microseconds per pair:

    words x frames, k, heads    products  compiled  (x products, x literal)  eager  literal  bf16: products  compiled
    32 x 12,  3, 1                 4.06      4.54    1.12   95               14.6    430          2.08       3.12
    32 x 12,  6, 1                 4.20      4.65    1.11   91               16.3    424
    32 x 12, 16, 1                 3.99      5.28    1.33   84               17.8    442
    32 x 12,  3, 2                 7.36      7.25    0.99   60               28.8    434
    32 x 12,  3, 4                11.7      12.8     1.09   33               61.9    425
    64 x 64,  6, 1                46.7      49.8     1.07   15                242    752         20.8       35.7
    64 x 64, 16, 1                48.4      51.2     1.06   15                261    753

The first size in three more runs (--quick --only sizes): 102, 101 and 91 times the literal equations, 1.14, 1.14
and 1.10 times the products. Torch.compile alone takes 7.55 us there, X-CLIP as its authors compute it 13.3,
X-Pool likewise 8.73; at 64 x 64, k 6, X-CLIP 102, X-Pool 108.

With bfloat16 operands a pair takes 0.77 of the time of the float32 products alone, at 64 x 64 too. On a processor
without the instructions (AVX2) they took nine times as long as float32 ones. Rankings agree: over 256 x 256
pairs the first video is the same for every text, the first ten for 96 %, similarities differ by 0.0012 at most.

Training step of the head at batch 128: 0.70 s and 147 MB; the literal one, by pairs from batch 32, 20.5 s and
11.1 GB: 1/29 of the time and 1/76 of the memory.

From features to all similarities, in addition to the features' memory:

    500 x 500        1.3 s      55 MB
    1,000 x 1,000    4.9 s     109 MB
    2,000 x 1,000    9.5 s     101 MB
    4,000 x 1,000   18.4 s     138 MB
    15,000 x 1,500   102 s     208 MB, of which the result 90

So time is linear in pairs, and memory is that of the records and the result.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import literal_forms
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from methods import by_head, configs, frames

from tcmgc import model
from tcmgc.config import Attention, Reorganise, TcMgcHead, XClipHead, XPoolHead
from tcmgc.heads import Sizes, TcMgc, XClip, XPool, native, record_layout, score_tiled
from tcmgc.heads.literal import literal_score
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training.losses import info_nce, similarity_decorrelation

DIM = 512
CLOCK: Callable[[], float] = time.perf_counter
Row = dict[str, Any]


def features(
    texts: int, videos: int, words: int, frames: int, patches: int = 0
) -> tuple[TextFeatures, VideoFeatures]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    seen = draw(videos, frames, DIM)
    return (
        TextFeatures(draw(texts, DIM), draw(texts, words, DIM), torch.ones(texts, words) > 0),
        VideoFeatures(
            seen,
            seen,
            torch.ones(videos, frames) > 0,
            draw(videos, frames, patches, DIM) if patches else None,
        ),
    )


def tcmgc(words: int = 32, frames: int = 12, kept: int = 3, heads: int = 1) -> TcMgc:
    options = TcMgcHead(
        attention=Attention(heads=heads), reorganise=Reorganise(keep_rate=kept / words)
    )
    return TcMgc(options, Sizes(DIM, words, frames))


def interleaved(methods: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each method: the minimum over rounds in which every method runs once."""
    best = dict.fromkeys(methods, float("inf"))
    for method in methods.values():
        method()
    for _ in range(rounds):
        for name, method in methods.items():
            start = CLOCK()
            method()
            best[name] = min(best[name], CLOCK() - start)
    return best


def peak_memory() -> int:
    """Peak memory of this process in bytes since :func:`forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def gemms(
    texts: int, videos: int, words: int, frames: int, heads: int, dtype: torch.dtype
) -> Callable[[], None]:
    """The two matrix products over all pairs, nothing else, a tile at a time.

    Queries by keys, as many columns as frames; columns by outputs, once for each head.
    """
    rows = torch.randn(16 * (words + 1), DIM).to(dtype)
    keys = torch.randn(frames * min(videos, 64), DIM).to(dtype)
    outputs = torch.randn(heads * frames * min(videos, 64), DIM).to(dtype)
    tiles = (texts * videos) // (16 * min(videos, 64))

    def run() -> None:
        for _ in range(tiles):
            rows @ keys.T
            rows @ outputs.T

    return run


def case(words: int, frames: int, kept: int, heads: int, rounds: int, peers: bool) -> Iterator[Row]:
    """One size: microseconds per pair of each method, in one interleaved run."""
    small = frames <= 16
    texts, videos = (128, 512) if small else (64, 128)
    text, video = features(texts, videos, words, frames)
    head = tcmgc(words, frames, kept, heads).eval()
    part = (32, 128) if small else (4, 32)
    few_texts, few_videos = text[: part[0]], video[: part[1]]

    def without_native() -> None:
        with native.off():
            score_tiled(head, text, record, compile=True)

    with torch.no_grad():
        record = head.record(video)
        bf16 = torch.bfloat16
        methods: dict[str, tuple[int, Callable[[], Any]]] = {
            "two GEMMs": (
                texts * videos,
                gemms(texts, videos, words, frames, heads, torch.float32),
            ),
            "collapsed, eager": (
                texts * videos,
                lambda: score_tiled(head, text, record, compile=False),
            ),
        }
        if native.available(text.sentence):
            methods["collapsed, compiled"] = (
                texts * videos,
                lambda: score_tiled(head, text, record, compile=True),
            )
        if peers and small:
            methods["collapsed, torch.compile"] = (texts * videos, without_native)
        quick = interleaved({name: run for name, (_, run) in methods.items()}, rounds)
        slow: dict[str, tuple[int, Callable[[], Any]]] = {
            "literal": (
                part[0] * part[1],
                lambda: literal_score(head, few_texts, few_videos),
            )
        }
        if peers:
            sizes, one = Sizes(DIM, words, frames), torch.tensor(1.0)
            clip, pool = XClip(XClipHead(), sizes), XPool(XPoolHead(heads=heads), sizes).eval()
            slow["X-CLIP, literal"] = (
                texts * videos,
                lambda: literal_forms.xclip(clip, text, video, one),
            )
            slow["X-Pool, literal"] = (
                part[0] * part[1],
                lambda: literal_forms.xpool(pool, few_texts, few_videos, one),
            )
            slow["two GEMMs, bf16"] = (
                texts * videos,
                gemms(texts, videos, words, frames, heads, bf16),
            )
            slow["collapsed, bf16"] = (
                texts * videos,
                lambda: score_tiled(head, text, record, compile=True, bf16=True),
            )
        found = quick | interleaved({name: run for name, (_, run) in slow.items()}, rounds)
    each = {name: found[name] / pairs * 1e6 for name, (pairs, _) in (methods | slow).items()}
    for name, microseconds in each.items():
        yield {
            "case": f"{words} words x {frames} frames, k {kept}, heads {heads}",
            "method": name,
            "us_per_pair": microseconds,
            "vs_gemm": microseconds / each["two GEMMs"],
            "vs_literal": each["literal"] / microseconds,
        }


def agreement() -> Iterator[Row]:
    """How far rankings with bfloat16 operands, and with records in float16, agree with float32's."""
    text, video = features(256, 2000, 32, 12)
    # Matching pairs, so that ranks are meaningful.
    seen = video.encoded[:256]
    text = TextFeatures(
        0.5 * text.sentence + seen.mean(1), 0.5 * text.words + seen.mean(1, True), text.word_mask
    )
    head = tcmgc().eval()
    with torch.no_grad():
        record = head.record(video)
        layout = record_layout(head, 12)
        stored = layout.record(layout.rows(record))
        exact = score_tiled(head, text, record, compile=False).similarity
        for case, low in (
            ("bf16 operands", score_tiled(head, text, record, compile=False, bf16=True)),
            ("float16 records", score_tiled(head, text, stored)),
        ):
            for name, value in _agreement(exact, low.similarity):
                yield {
                    "case": f"{case} against float32, 256 x 2000",
                    "method": name,
                    "value": value,
                }


def _agreement(exact: Tensor, low: Tensor) -> Iterator[tuple[str, float]]:
    ranks = [s.argsort(1, descending=True).argsort(1).double() for s in (exact, low)]
    centred = [r - r.mean(1, keepdim=True) for r in ranks]
    spearman = (centred[0] * centred[1]).sum(1) / (centred[0].norm(dim=1) * centred[1].norm(dim=1))
    tens = [s.topk(10).indices for s in (exact, low)]
    both = (tens[0].unsqueeze(2) == tens[1].unsqueeze(1)).any(2).double()
    yield "largest difference of a similarity", float((exact - low).abs().max())
    yield "spread of a text's similarities", float(exact.std(1).mean())
    yield "mean Spearman correlation of a text's ranking", float(spearman.mean())
    same = (exact.argmax(1) == low.argmax(1)).double().mean()
    yield "share of texts with the same first video", float(same)
    yield "share of the first ten in both", float(both.mean())


def _training_step(
    kind: str, batch: int, pipe: Any, threads: int, clock: Callable[[], float]
) -> None:
    torch.set_num_threads(threads)
    text, video = features(batch, batch, 32, 12)
    head = tcmgc()
    for leaf in (text.sentence, text.words, video.encoded):
        leaf.requires_grad_()

    def step() -> None:
        if kind == "literal":
            scores = literal_score(head, text, video)
        else:
            scores = head.score(text, head.record(video))
        t2v, v2t = info_nce(scores.similarity, 100.0)
        (t2v + v2t + 0.5 * similarity_decorrelation(scores.grains)).backward()

    step()
    forget_peak()
    before = peak_memory()
    best = float("inf")
    for _ in range(1 if kind == "literal" else 3):
        start = clock()
        step()
        best = min(best, clock() - start)
    pipe.send((best, peak_memory() - before))


def _fresh(target: Callable[..., None], *arguments: Any) -> Any:
    """The result of a function in a separate process, so that its memory can be measured."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(
        target=target, args=(*arguments, theirs, torch.get_num_threads(), CLOCK)
    )
    process.start()
    theirs.close()
    found = mine.recv()
    process.join()
    return found


def training(batch: int, literal_batch: int) -> Iterator[Row]:
    """A training step of the head; the literal one at a smaller batch, scaled by its pairs."""
    seconds, memory = _fresh(_training_step, "collapsed", batch)
    slow, large = _fresh(_training_step, "literal", literal_batch)
    times = (batch / literal_batch) ** 2
    yield {
        "case": f"training step, batch {batch}",
        "method": "collapsed",
        "us_per_pair": seconds / batch**2 * 1e6,
        "seconds": seconds,
        "memory_mb": memory / 1e6,
        "vs_literal": slow * times / seconds,
        "memory_vs_literal": large * times / memory,
    }
    yield {
        "case": f"training step, batch {batch}",
        "method": f"literal, from batch {literal_batch}",
        "us_per_pair": slow / literal_batch**2 * 1e6,
        "seconds": slow * times,
        "memory_mb": large * times / 1e6,
        "vs_literal": 1.0,
    }


def _retrieval(
    texts: int, videos: int, pipe: Any, threads: int, clock: Callable[[], float]
) -> None:
    torch.set_num_threads(threads)
    text, video = features(texts, videos, 32, 12)
    head = tcmgc().eval()
    with torch.no_grad():  # compile, or read what was compiled before
        score_tiled(head, text[:128], head.record(video[:128]), compile=True)
    forget_peak()
    before = peak_memory()
    start = clock()
    with torch.no_grad():
        record = head.record(video)
        scores = score_tiled(head, text, record, compile=True, grains=False)
    seconds = clock() - start
    pipe.send((seconds, peak_memory() - before, scores.similarity.nbytes))


def retrieval(sizes: list[tuple[int, int]]) -> Iterator[Row]:
    """From features to all similarities: seconds, and memory above the features."""
    for texts, videos in sizes:
        seconds, memory, result = _fresh(_retrieval, texts, videos)
        yield {
            "case": f"{texts} x {videos} from features",
            "method": "collapsed, compiled",
            "us_per_pair": seconds / texts / videos * 1e6,
            "seconds": seconds,
            "memory_mb": memory / 1e6,
            "of_it_result_mb": result / 1e6,
        }


BLOCK = 64
"""Texts and videos that the authors' forms score together."""


def method(name: str, config: Any, size: int, rounds: int, budget: float) -> Row:
    """All similarities of equal numbers of texts and videos, ours and as the authors compute them.

    Both are timed in turn, on as many pairs as fit into ``budget`` seconds per call; incomplete
    ones are scaled to all pairs. Before that, both must agree.
    """
    torch.manual_seed(0)
    sizes = config.data.max_words, frames(config)
    head = model.build_head(config, DIM).eval()
    scale = torch.tensor(config.loss.scale)
    text, video = features(size, size, *sizes, patches=config.tokens.patches_given)
    form = literal_forms.FORMS[type(head)]

    def ours(count: int) -> Tensor:
        record = head.record(video[:count])
        return score_tiled(head, text[:count], record, scale, grains=False).similarity

    def theirs(count: int) -> Tensor:
        found = torch.empty(count, count)
        for top in range(0, count, BLOCK):
            rows = slice(top, min(top + BLOCK, count))
            for left in range(0, count, BLOCK):
                columns = slice(left, min(left + BLOCK, count))
                found[rows, columns] = form(head, text[rows], video[columns], scale)
        return found

    few = min(16, size)
    with torch.no_grad():
        one, other = ours(few), theirs(few)
        worst = ((one - other).abs().max() / other.abs().max()).item()
        if worst > 1e-4:
            raise SystemExit(f"{name}: differs from its authors' form by {worst:.1e}")
        counts = []
        for way in (ours, theirs):
            start = CLOCK()
            way(few)
            each = (CLOCK() - start) / few**2
            counts.append(min(size, max(few, int((budget / each) ** 0.5))))
        mine, literal = counts
        found = interleaved({"ours": lambda: ours(mine), "theirs": lambda: theirs(literal)}, rounds)
    ours_each, theirs_each = found["ours"] / mine**2, found["theirs"] / literal**2
    return {
        "case": f"{size} x {size} from features",
        "method": name,
        "us_per_pair": 1e6 * ours_each,
        "literal_us_per_pair": 1e6 * theirs_each,
        "vs_literal": theirs_each / ours_each,
        "seconds": ours_each * size**2,
        "timed": f"{mine}^2, {literal}^2",
        "differs": worst,
    }


def show(row: Row) -> None:
    case, method = row["case"], row["method"]
    numbers = "  ".join(
        f"{name} {value if isinstance(value, str) else format(value, '.4g')}"
        for name, value in row.items()
        if name not in ("case", "method")
    )
    print(f"{case:42} {method:28} {numbers}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write all rows here")
    parser.add_argument("--quick", action="store_true", help="the first size and small data only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count this process's CPU seconds, for a machine that others use; with --threads 1",
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--only", nargs="*", default=["sizes", "bf16", "training", "retrieval"], metavar="PART"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="these methods against their authors' forms instead, `all` or `paper` for groups",
    )
    parser.add_argument("--size", type=int, default=1000, help="texts and videos for --methods")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a timed call for --methods")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    global CLOCK
    CLOCK = time.process_time if arguments.cpu_time else time.perf_counter
    sizes = [(32, 12, 3, 1), (32, 12, 6, 1), (32, 12, 16, 1), (32, 12, 3, 2), (32, 12, 3, 4)]
    sizes += [(64, 64, 6, 1), (64, 64, 16, 1)]
    squares = [(500, 500), (1000, 1000), (2000, 1000), (4000, 1000), (15000, 1500)]
    rows: list[Row] = []

    def collect(found: Iterator[Row]) -> None:
        for row in found:
            show(row)
            rows.append(row)

    if arguments.methods:
        arguments.only = []
        for name, config in by_head(configs(arguments.methods)).items():
            one = method(name, config, arguments.size, arguments.rounds, arguments.seconds)
            collect(iter([one]))
    if "sizes" in arguments.only:
        for i, size in enumerate(sizes[:1] if arguments.quick else sizes):
            collect(case(*size, rounds=arguments.rounds, peers=i == 0 or size == (64, 64, 6, 1)))
    if "bf16" in arguments.only:
        collect(agreement())
    if "training" in arguments.only:
        collect(training(32, 8) if arguments.quick else training(128, 32))
    if "retrieval" in arguments.only:
        collect(retrieval(squares[:1] if arguments.quick else squares))
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
