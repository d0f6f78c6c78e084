"""The paper's Tables 1, 2, 3 and 14: published figures, for comparison with measured ones.

Nothing here was measured by this project. Rows are as printed, misprints included
(:data:`MISPRINTS`); cells that the paper leaves empty are absent. ``†`` marks systems that the paper's
authors retrained; they quote the others from each system's own paper. Rows without a
CLIP tower have no method here and are cited only.
"""

from dataclasses import dataclass

_COLUMNS = ("R1", "R5", "R10", "MdR", "MnR", "RSum")


@dataclass(frozen=True)
class Published:
    """One row of a table of results."""

    name: str
    """As printed."""
    venue: str
    tower: str
    """``ViT-B/32`` or ``ViT-B/16``; empty for systems without CLIP."""
    retrained: bool
    """Retrained by the paper's authors (†)."""
    figures: dict[str, float]
    """``t2v/R1`` … ``v2t/RSum`` and ``SumR``, of the test split."""
    milliseconds: float | None
    """Similarity time per video on an RTX 3090, without encoding."""

    @property
    def method(self) -> str | None:
        """This project's method for the row."""
        return METHODS.get(self.name)


METHODS = {
    "CLIP4Clip-meanP": "clip4clip_meanp",
    "CLIP4Clip-seqLSTM": "clip4clip_seqlstm",
    "CLIP4Clip-seqTransf": "clip4clip_seqtransf",
    "CLIP4Clip-tightTransf": "clip4clip_tighttransf",
    "X-Pool": "xpool",
    "CenterCLIP": "centerclip",
    "DRL": "drl",
    "TS2-Net": "ts2net",
    "UCoFiA": "ucofia",
    "X-CLIP": "xclip",
    "TC-MGC": "tcmgc_released",
}
"""From the paper's names to ours. Its parameters show that TC-MGC's rows are the released code's."""

_MSRVTT_7K = """
    HowTo100M | ICCV'19 | - | 14.9 40.2 52.8 9.0 - 107.9 | 16.8 41.7 55.1 8.0 - 113.6 | 221.5
    ActBERT | CVPR'20 | - | 8.6 23.4 33.1 36.0 - 65.1 | - - - - - - | -
    HERO | ArXiv'20 | - | 16.8 43.4 57.7 - - 117.9 | - - - - - - | -
    NoiseE | ArXiv'20 | - | 17.4 41.6 53.6 8.0 - 112.6 | - - - - - - | -
    ClipBERT | CVPR'21 | - | 22.0 46.8 59.9 6.0 - 128.7 | - - - - - - | -
  ViT-B/32
    CLIP4Clip-meanP † | NeurComp'22 | 14.9 | 42.9 67.9 79.2 2.0 16.6 190.0 | 42.2 69.7 80.1 2.0 12.7 192.0 | 382.0
    CLIP4Clip-seqLSTM † | NeurComp'22 | 54.7 | 42.3 67.3 79.0 2.0 16.4 188.6 | 42.5 69.5 79.6 2.0 12.6 191.6 | 380.2
    CLIP4Clip-seqTransf † | NeurComp'22 | 215.0 | 41.9 69.1 79.0 2.0 17.1 190.0 | 40.5 68.7 77.5 2.0 12.7 186.7 | 376.7
    CLIP4Clip-tightTransf † | NeurComp'22 | 587.3 | 38.3 68.7 79.1 2.0 16.4 186.1 | 37.3 67.7 78.5 2.0 14.3 183.5 | 369.6
    X-Pool † | CVPR'22 | 330.2 | 42.4 69.6 80.6 2.0 15.0 192.6 | 43.7 70.7 82.8 2.0 9.6 197.2 | 389.8
    CenterCLIP | SIGIR'22 | 42.5 | 43.7 71.3 80.2 2.0 16.2 195.2 | 43.2 71.0 80.4 2.0 12.3 194.6 | 389.8
    DRL † | ArXiv'22 | 90.3 | 44.7 70.8 79.2 2.0 15.1 194.7 | 43.7 69.0 80.2 2.0 10.2 192.9 | 387.6
    UCoFiA † | ICCV'23 | 136.1 | 44.0 70.8 80.0 2.0 16.3 194.8 | 42.4 70.2 79.5 2.0 11.7 192.1 | 386.9
    X-CLIP † | ArXiv'22 | 75.6 | 44.9 69.6 80.1 2.0 16.5 194.6 | 43.3 69.3 78.2 2.0 11.5 190.8 | 385.4
    TC-MGC | – | 672.7 | 45.5 71.6 81.4 2.0 14.2 198.5 | 44.2 72.2 81.4 2.0 9.1 197.8 | 396.3
  ViT-B/16
    CLIP4Clip-meanP † | NeurComp'22 | 16.2 | 45.9 72.0 81.6 2.0 14.5 199.5 | 45.7 72.2 81.3 2.0 11.7 199.2 | 398.7
    CLIP4Clip-seqLSTM † | NeurComp'22 | 54.4 | 45.5 72.6 81.9 2.0 14.5 200.0 | 45.9 72.4 81.6 2.0 11.5 199.9 | 399.9
    CLIP4Clip-seqTransf † | NeurComp'22 | 203.3 | 46.2 71.3 81.0 2.0 15.0 198.5 | 43.9 71.0 80.5 2.0 12.0 195.4 | 393.9
    CLIP4Clip-tightTransf † | NeurComp'22 | 589.2 | 40.6 71.6 80.4 2.0 13.9 192.6 | 40.8 69.9 79.9 2.0 10.9 190.6 | 393.2
    X-Pool † | CVPR'22 | 345.3 | 44.4 71.5 81.6 2.0 12.8 197.5 | 45.5 74.2 84.1 2.0 8.6 203.8 | 401.3
    CenterCLIP | SIGIR'22 | 84.2 | 47.5 74.4 82.5 2.0 13.7 204.4 | 46.9 73.4 83.2 2.0 9.3 203.5 | 407.9
    DRL † | ArXiv'22 | 43.6 | 47.0 73.5 82.1 2.0 13.1 202.6 | 46.1 74.8 82.8 2.0 9.2 203.7 | 406.3
    UCoFiA † | ICCV'23 | 142.0 | 48.8 74.1 81.3 2.0 13.1 204.2 | 46.9 74.2 82.9 2.0 9.1 204.0 | 408.2
    X-CLIP † | ArXiv'22 | 98.0 | 48.2 75.1 82.8 2.0 14.0 206.1 | 47.1 74.8 83.1 2.0 9.5 205.0 | 411.1
    TC-MGC | – | 719.1 | 48.7 74.6 83.2 2.0 13.0 206.5 | 45.7 75.1 84.3 2.0 8.9 205.1 | 411.6
"""

_MSRVTT_9K = """
    CE | ArXiv'19 | - | 20.9 48.8 62.4 6.0 28.2 132.1 | 20.6 50.3 64.0 5.3 - 134.9 | 267.0
    MMT | ECCV'20 | - | 26.6 57.1 69.6 4.0 24.0 153.3 | 27.0 57.5 69.7 3.7 - 154.2 | 307.5
    MDMMT | CVPR'21 | - | 38.9 69.0 79.7 2.0 16.5 187.6 | - - - - - - | -
    Frozen | ICCV'21 | - | 31.0 59.5 70.5 3.0 - 161.0 | - - - - - - | -
    HiT | ICCV'21 | - | 30.7 60.9 73.2 2.6 - 164.8 | 32.1 62.7 74.1 3.0 - 168.9 | 333.7
    TMVM | NeurIPS'22 | - | 36.2 64.2 75.7 3.0 - 176.1 | 34.8 63.8 73.7 3.0 - 172.3 | 348.4
  ViT-B/32
    CLIP4Clip-meanP | NeurComp'22 | 14.4 | 43.1 70.4 80.8 2.0 16.2 194.3 | 43.1 70.5 81.2 2.0 12.4 194.8 | 389.1
    CLIP4Clip-seqLSTM | NeurComp'22 | 52.5 | 42.5 70.8 80.7 2.0 16.7 194.0 | 42.8 71.0 80.4 2.0 12.3 194.2 | 388.2
    CLIP4Clip-seqTransf | NeurComp'22 | 199.6 | 44.5 71.4 81.6 2.0 15.3 197.5 | 42.7 70.9 80.6 2.0 11.6 194.2 | 391.7
    CLIP4Clip-tightTransf | NeurComp'22 | 582.7 | 40.2 71.5 80.5 2.0 13.4 192.2 | 40.6 69.5 79.5 2.0 13.6 189.6 | 381.8
    CenterCLIP | SIGIR'22 | 41.4 | 44.2 71.6 82.1 2.0 15.1 197.9 | 42.8 71.7 82.2 2.0 10.9 196.7 | 394.6
    X-Pool | CVPR'22 | 346.0 | 46.9 72.8 82.2 2.0 14.3 201.9 | 44.4 73.3 84.0 2.0 9.0 201.7 | 403.6
    DRL † | ArXiv'22 | 95.4 | 47.5 73.8 83.6 2.0 13.3 204.9 | 46.3 72.7 82.5 2.0 9.5 201.5 | 406.4
    UCoFiA † | ICCV'23 | 134.3 | 46.8 72.6 82.4 2.0 13.9 201.8 | 45.3 72.7 82.2 2.0 9.8 200.2 | 402.0
    X-CLIP | ArXiv'22 | 75.7 | 46.1 73.0 83.1 2.0 13.2 202.2 | 46.8 73.3 84.0 2.0 9.1 204.1 | 406.3
    TC-MGC | – | 673.1 | 47.4 74.8 84.2 2.0 12.8 206.4 | 45.9 74.5 83.3 2.0 8.6 203.7 | 410.1
  ViT-B/16
    CLIP4Clip-meanP † | NeurComp'22 | 16.3 | 45.3 73.3 83.0 2.0 13.0 201.6 | 44.8 73.2 82.2 2.0 9.6 200.2 | 401.8
    CLIP4Clip-seqLSTM † | NeurComp'22 | 54.7 | 44.3 72.0 82.2 2.0 13.7 198.5 | 44.3 73.4 82.4 2.0 10.3 200.1 | 398.6
    CLIP4Clip-seqTransf † | NeurComp'22 | 204.5 | 46.4 72.1 82.0 2.0 14.7 200.5 | 45.4 73.4 82.4 2.0 10.7 201.2 | 401.7
    CLIP4Clip-tightTransf † | NeurComp'22 | 585.7 | 42.9 71.7 81.5 2.0 13.3 196.1 | 41.9 71.0 80.7 2.0 10.1 193.6 | 389.7
    CenterCLIP | SIGIR'22 | 82.0 | 48.4 73.8 82.0 2.0 13.8 204.2 | 47.7 75.0 83.3 2.0 10.2 206.0 | 410.2
    X-Pool † | CVPR'22 | 353.7 | 49.7 74.7 84.2 2.0 12.3 208.6 | 48.1 76.0 85.5 2.0 8.1 209.6 | 418.2
    DRL † | ArXiv'22 | 62.1 | 49.4 76.4 84.2 2.0 13.2 210.0 | 47.0 77.1 84.4 2.0 9.2 208.5 | 418.5
    UCoFiA † | ICCV'23 | 131.7 | 49.7 75.7 84.2 2.0 12.6 209.6 | 48.1 76.3 84.4 2.0 8.8 208.8 | 418.4
    X-CLIP † | ArXiv'22 | 95.7 | 49.4 75.7 84.4 2.0 12.2 209.5 | 48.6 75.2 84.6 2.0 8.0 208.4 | 417.9
    TC-MGC | – | 712.8 | 49.0 75.7 85.4 2.0 13.2 210.1 | 46.4 77.1 85.3 2.0 8.8 208.8 | 418.9
"""

_DIDEMO = """
    S2VT | ArXiv'14 | - | 11.9 33.6 - 13.0 - - | 13.2 33.6 - 15.0 - - | -
    FSE | ECCV'18 | - | 13.9 36.0 - 11.0 - - | 13.1 33.9 - 12.0 - - | -
    CE | ArXiv'19 | - | 16.1 41.1 - 8.3 43.7 - | 15.6 40.9 - 8.2 42.4 - | -
    Frozen | ICCV'21 | - | 34.6 65.0 74.7 3.0 - 174.3 | - - - - - - | -
    TMVM | NeurIPS'22 | - | 36.5 64.9 75.4 3.0 - 176.8 | - - - - - - | -
  ViT-B/32
    CLIP4Clip-meanP † | NeurComp'22 | 18.8 | 40.8 67.8 77.4 2.0 20.8 186.0 | 40.7 67.3 77.5 2.0 15.4 185.5 | 371.5
    CLIP4Clip-seqLSTM † | NeurComp'22 | 65.9 | 40.8 67.8 77.1 2.0 21.5 185.7 | 40.1 66.8 77.4 2.0 15.7 184.3 | 370.0
    CLIP4Clip-seqTransf † | NeurComp'22 | 198.2 | 40.6 66.3 76.1 2.0 19.8 183.0 | 40.5 65.6 75.9 2.0 15.5 182.0 | 365.0
    TS2-Net † | ECCV'22 | 723.6 | 42.5 69.3 77.8 2.0 18.8 189.6 | 42.2 68.2 78.6 2.0 13.6 189.0 | 378.6
    UCoFiA † | ICCV'23 | 337.2 | 45.2 72.4 81.3 2.0 13.9 198.9 | 44.8 72.0 81.5 2.0 10.7 198.3 | 397.2
    X-CLIP † | ArXiv'22 | 238.1 | 44.7 72.7 80.6 2.0 15.9 198.0 | 44.5 72.3 82.0 2.0 12.6 198.8 | 396.8
    TC-MGC | – | 1944.7 | 45.7 72.7 81.9 2.0 15.0 200.3 | 45.4 73.3 82.9 2.0 10.5 201.6 | 401.9
  ViT-B/16
    CLIP4Clip-meanP † | NeurComp'22 | 22.6 | 42.8 71.6 81.7 2.0 16.6 196.1 | 43.1 71.8 80.8 2.0 12.2 195.7 | 391.8
    CLIP4Clip-seqLSTM † | NeurComp'22 | 83.6 | 43.5 70.8 80.3 2.0 17.5 194.6 | 41.7 70.6 81.6 2.0 12.6 193.9 | 388.5
    CLIP4Clip-seqTransf † | NeurComp'22 | 216.3 | 42.8 72.6 80.8 2.0 15.9 196.2 | 42.4 71.9 81.0 2.0 11.9 195.3 | 391.5
    TS2-Net † | ECCV'22 | 738.8 | 44.7 73.6 82.8 2.0 16.2 201.1 | 44.8 72.2 82.0 2.0 11.8 199.0 | 400.1
    UCoFiA † | ICCV'23 | 338.0 | 48.9 75.4 84.9 2.0 11.6 209.2 | 45.6 74.2 83.0 2.0 8.8 202.8 | 412.0
    X-CLIP † | ArXiv'22 | 255.6 | 46.1 74.7 82.7 2.0 18.6 203.5 | 45.2 75.6 82.5 2.0 12.4 203.3 | 406.8
    TC-MGC | – | 1625.4 | 48.6 76.2 83.9 2.0 13.4 208.7 | 47.7 74.8 83.8 2.0 9.4 206.3 | 415.0
"""

_VATEX = """
    HGR | CVPR'20 | - | 35.1 73.5 83.5 2.0 - 192.1 | - - - - - - | -
    SUPPORT | ICLR'21 | - | 44.6 81.8 89.5 1.0 - 215.9 | 58.1 83.8 90.9 1.0 - 232.8 | 448.7
  ViT-B/32
    CLIP4Clip-meanP † | NeurComp'22 | 29.5 | 57.3 88.6 94.3 1.0 4.0 240.2 | 73.9 96.1 98.7 1.0 1.8 268.7 | 508.9
    CLIP4Clip-seqLSTM † | NeurComp'22 | 104.0 | 57.3 88.7 94.2 1.0 4.0 240.2 | 73.8 96.3 99.2 1.0 1.8 269.3 | 509.5
    CLIP4Clip-seqTransf † | NeurComp'22 | 387.7 | 58.7 89.3 94.7 1.0 3.7 242.7 | 74.8 96.7 98.6 1.0 1.8 270.1 | 512.8
    TS2-Net † | ECCV'22 | 441.9 | 59.5 89.8 95.0 1.0 3.6 244.3 | 74.6 96.3 98.9 1.0 1.8 269.8 | 514.1
    UCoFiA † | ICCV'23 | 1815.8 | 59.3 88.8 94.3 1.0 4.1 242.4 | 73.0 96.1 98.9 1.0 1.9 268.0 | 510.4
    X-CLIP † | ArXiv'22 | 488.4 | 59.1 88.9 94.2 1.0 3.9 242.2 | 74.8 97.3 99.0 1.0 1.8 271.1 | 513.3
    TC-MGC | – | 3203.5 | 60.0 89.5 94.9 1.0 3.8 244.4 | 75.3 97.0 98.6 1.0 1.9 270.9 | 515.3
  ViT-B/16
    CLIP4Clip-meanP † | NeurComp'22 | 29.6 | 62.0 91.1 95.8 1.0 3.3 248.9 | 78.3 97.9 99.1 1.0 1.5 275.3 | 524.2
    CLIP4Clip-seqLSTM † | NeurComp'22 | 101.2 | 62.4 91.1 95.9 1.0 3.2 249.4 | 77.9 97.8 99.2 1.0 1.5 274.9 | 524.3
    CLIP4Clip-seqTransf † | NeurComp'22 | 396.3 | 63.3 92.0 96.2 1.0 3.0 251.5 | 80.1 98.2 99.1 1.0 1.5 277.4 | 528.9
    TS2-Net † | ECCV'22 | 461.3 | 62.3 91.5 96.2 1.0 3.1 250.0 | 77.4 97.5 99.3 1.0 1.6 274.2 | 524.2
    UCoFiA † | ICCV'23 | 1840.8 | 64.3 91.6 95.9 1.0 3.3 251.8 | 79.8 97.6 99.0 1.0 1.5 276.4 | 528.2
    X-CLIP † | ArXiv'22 | 480.5 | 62.8 91.4 96.1 1.0 3.1 250.3 | 78.5 97.8 99.2 1.0 1.6 275.5 | 525.8
    TC-MGC | – | 5974.2 | 63.4 91.9 96.3 1.0 3.0 251.6 | 77.7 97.9 99.4 1.0 1.5 275.0 | 526.6
"""


def _table(text: str) -> tuple[Published, ...]:
    """``name [†] | venue | ms | six figures | six figures | SumR`` per line, towers on separate lines."""
    rows, tower = [], ""
    for line in text.strip().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 1:
            tower = cells[0]
            continue
        name, venue, speed, there, back, total = cells
        figures = _figures("t2v", there) | _figures("v2t", back)
        if total != "-":
            figures["SumR"] = float(total)
        rows.append(
            Published(
                name=name.removesuffix("†").strip(),
                venue="" if venue == "–" else venue,
                tower=tower,
                retrained=name.endswith("†"),
                figures=figures,
                milliseconds=None if speed == "-" else float(speed),
            )
        )
    return tuple(rows)


def _figures(direction: str, cells: str) -> dict[str, float]:
    pairs = zip(_COLUMNS, cells.split(), strict=True)
    return {f"{direction}/{name}": float(cell) for name, cell in pairs if cell != "-"}


TABLES: dict[str, tuple[Published, ...]] = {
    "msrvtt_7k": _table(_MSRVTT_7K),
    "msrvtt_9k": _table(_MSRVTT_9K),
    "didemo": _table(_DIDEMO),
    "vatex": _table(_VATEX),
}
"""By the name of the data set: Tables 1a, 1b, 2 and 3."""

SOURCES = {
    "msrvtt_7k": "Table 1a",
    "msrvtt_9k": "Table 1b",
    "didemo": "Table 2",
    "vatex": "Table 3",
}
"""Their tables in the paper."""

MISPRINTS = {("msrvtt_7k", "ViT-B/16", "CLIP4Clip-tightTransf", "SumR"): 383.2}
"""Sums printed in the paper that differ from the sum of its cells, by data set, tower, row and
column; with the correct sum."""


@dataclass(frozen=True)
class Efficiency:
    """A row of Table 14: MSR-VTT, ViT-B/32, batch 64, an RTX 3090."""

    name: str
    training_minutes: int
    parameters: float
    """Millions, by a counter that skips `nn.MultiheadAttention`."""
    multiply_adds: float
    """10^9 per pair, by the same counter; the paper calls them FLOPs."""
    memory: float
    """MB."""
    sum_r: float


EFFICIENCY: tuple[Efficiency, ...] = (
    Efficiency("CLIP4Clip-seqTransf", 198, 92.62, 36.27, 2869.89, 391.7),
    Efficiency("X-Pool", 195, 85.54, 37.34, 2837.16, 403.6),
    Efficiency("DRL", 190, 93.15, 36.28, 2940.17, 406.4),
    Efficiency("UCoFiA", 141, 92.89, 36.43, 3037.43, 402.0),
    Efficiency("X-CLIP", 212, 92.62, 36.27, 2942.48, 406.3),
    Efficiency("TC-MGC", 157, 92.89, 37.39, 2947.50, 410.1),
)
"""Table 14."""
