"""The frame cache: every video decoded once, its frames kept in checked shards."""

from tcmgc.frames.cache import FrameCache
from tcmgc.frames.reader import FrameReader

__all__ = ["FrameCache", "FrameReader"]
