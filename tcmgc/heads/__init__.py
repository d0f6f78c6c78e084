"""Scoring rules: one small class each."""

from tcmgc.heads.base import Head, Sizes, score_tiled
from tcmgc.heads.mean import Mean
from tcmgc.heads.mean_max import MeanMax
from tcmgc.heads.records import RecordLayout, record_layout, scan
from tcmgc.heads.tcmgc import TcMgc
from tcmgc.heads.tight import Tight
from tcmgc.heads.token_selection import TokenSelection
from tcmgc.heads.ucofia import Ucofia
from tcmgc.heads.wti import Wti
from tcmgc.heads.xclip import XClip
from tcmgc.heads.xpool import XPool

__all__ = [
    "Head",
    "Mean",
    "MeanMax",
    "RecordLayout",
    "Sizes",
    "TcMgc",
    "Tight",
    "TokenSelection",
    "Ucofia",
    "Wti",
    "XClip",
    "XPool",
    "record_layout",
    "scan",
    "score_tiled",
]
