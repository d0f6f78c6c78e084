"""Weights from files, recognised by content and read without executing anything."""

from tcmgc.towers.weights.clip import WholeModelError, into_clip
from tcmgc.towers.weights.files import Weights, exists, read
from tcmgc.towers.weights.model import into_model

__all__ = ["Weights", "WholeModelError", "exists", "into_clip", "into_model", "read"]
