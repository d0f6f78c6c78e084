"""Scoring rules: one small class each."""

from tcmgc.heads.base import Head, score_tiled
from tcmgc.heads.tcmgc import RELEASED, TcMgc
from tcmgc.heads.xclip import XClip
from tcmgc.heads.xpool import XPool

__all__ = ["RELEASED", "Head", "TcMgc", "XClip", "XPool", "score_tiled"]
