"""The frame cache: every video is decoded once, its frames are stored in shards with checksums."""

from tcmgc.frames.cache import FrameCache
from tcmgc.frames.reader import FrameReader

__all__ = ["FrameCache", "FrameReader"]
