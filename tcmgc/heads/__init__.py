"""Scoring rules: one small class each."""

from tcmgc.heads.base import Head, Sizes, score_tiled
from tcmgc.heads.records import RecordLayout, record_layout, scan
from tcmgc.heads.tcmgc import TcMgc
from tcmgc.heads.xclip import XClip
from tcmgc.heads.xpool import XPool

__all__ = [
    "Head",
    "RecordLayout",
    "Sizes",
    "TcMgc",
    "XClip",
    "XPool",
    "record_layout",
    "scan",
    "score_tiled",
]
