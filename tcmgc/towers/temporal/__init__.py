"""Temporal encoders, between the tower's frames and the heads (Eq. 1)."""

from tcmgc.towers.temporal.lstm import FrameLstm
from tcmgc.towers.temporal.transformer import Block, PatchTransformer, TemporalEncoder

__all__ = ["Block", "FrameLstm", "PatchTransformer", "TemporalEncoder"]
