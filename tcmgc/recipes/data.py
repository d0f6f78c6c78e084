"""Data recipes: a complete config for each data set, with TC-MGC's settings unless stated otherwise.

The figures stated for a recipe are the paper's (SumR is the sum of R@1, R@5 and R@10 in both
directions), not our measurements.

On the learning rate of CLIP: the 1e-7 of the paper, and of CLIP4Clip and its successors, assumes
weights stored in float16, for which steps are far larger than Adam intends. With float32
weights, as here, 1e-7 hardly changes the towers; systems that train in float32 or mixed precision and
reach the published level use 1e-6 (X-Pool) to 5e-6 (CenterCLIP). Recipes with published settings keep
the published rate; `msrvtt_9k_fp32` uses 2e-6, and our own optimiser and schedule.
"""

from dataclasses import replace

from tcmgc.config import Config, Data, Loss, Optim, Temporal, Towers, Train

B16 = "ViT-B-16-quickgelu"


def demo() -> Config:
    """The made-up corpus and a small tower from random weights; minutes on two cores.

    `python pipeline/train.py demo` creates the corpus if it does not exist. Captions of one video are not
    separated (`train.separate_captions`), so its numbers are those of earlier versions.
    """
    return Config(
        data=Data(dataset="demo", root="data/demo", val_videos=100, max_words=26, max_frames=6),
        towers=Towers(name="demo", pretrained=None, freeze="none"),
        temporal=Temporal(layers=1, heads=4),
        loss=Loss(scale=20.0),
        optim=Optim(
            kind="adamw",
            lr_clip=1.5e-3,
            lr_new=1.5e-3,
            weight_decay=0.05,
            decay="matrices",
            schedule="cosine",
        ),
        train=Train(epochs=4, batch_size=32, pieces=2),
    )


def msrvtt_9k() -> Config:
    """MSR-VTT, Training-9K, ViT-B/32. Paper (Table 1b): T2V R@1 47.4, SumR 410.1."""
    return Config(data=Data(dataset="msrvtt_9k", root="data/msrvtt", val_videos=500))


def msrvtt_9k_b16() -> Config:
    """MSR-VTT, Training-9K, ViT-B/16. Paper (Table 1b): T2V R@1 49.0, SumR 418.9."""
    return _with_tower(msrvtt_9k(), B16)


def msrvtt_9k_fp32() -> Config:
    """`msrvtt_9k` with a rate for CLIP that suits float32 weights, bf16 arithmetic, captions of a video apart."""
    base = msrvtt_9k()
    return replace(
        base,
        optim=replace(base.optim, lr_clip=2e-6, decay="matrices", schedule="cosine"),
        train=replace(base.train, precision="bf16", separate_captions=True),
    )


def msrvtt_7k() -> Config:
    """MSR-VTT, Training-7K, ViT-B/32. Paper (Table 1a): T2V R@1 45.5, SumR 396.3."""
    return Config(data=Data(dataset="msrvtt_7k", root="data/msrvtt", val_videos=500))


def msrvtt_7k_b16() -> Config:
    """MSR-VTT, Training-7K, ViT-B/16. Paper (Table 1a): T2V R@1 48.7, SumR 411.6."""
    return _with_tower(msrvtt_7k(), B16)


def didemo() -> Config:
    """DiDeMo paragraphs, ViT-B/32. Paper (Table 2): T2V R@1 45.7, SumR 401.9."""
    return Config(
        data=Data(dataset="didemo", root="data/didemo", max_words=64, max_frames=64),
        train=Train(epochs=20, batch_size=64),
    )


def didemo_b16() -> Config:
    """DiDeMo paragraphs, ViT-B/16. Paper (Table 2): T2V R@1 48.6, SumR 415.0."""
    return _with_tower(didemo(), B16)


def vatex() -> Config:
    """VATEX, HGR split, ViT-B/32. Paper (Table 3): T2V R@1 60.0, SumR 515.3."""
    return Config(data=Data(dataset="vatex", root="data/vatex"))


def vatex_b16() -> Config:
    """VATEX, HGR split, ViT-B/16. Paper (Table 3): T2V R@1 63.4, SumR 526.6."""
    return _with_tower(vatex(), B16)


def msvd() -> Config:
    """MSVD, ViT-B/32; not in TC-MGC's paper: its settings for MSR-VTT."""
    return Config(data=Data(dataset="msvd", root="data/msvd"))


def lsmdc() -> Config:
    """LSMDC, ViT-B/32; not in TC-MGC's paper: its settings for MSR-VTT."""
    return Config(data=Data(dataset="lsmdc", root="data/lsmdc"))


def activitynet() -> Config:
    """ActivityNet paragraphs, ViT-B/32; not in TC-MGC's paper: its settings for DiDeMo."""
    base = didemo()
    data = replace(base.data, dataset="activitynet", root="data/activitynet", val_videos=500)
    return replace(base, data=data)


def table() -> Config:
    """Your own videos: a CSV, TSV, JSONL or Parquet file with columns video and caption.

    `python pipeline/train.py table --data.root FOLDER_OR_FILE`
    """
    return replace(msrvtt_9k_fp32(), data=Data(dataset="table", root="data/table"))


def _with_tower(config: Config, name: str) -> Config:
    return replace(config, towers=replace(config.towers, name=name))
