"""The one row type that every reader gives, and what a split knows of itself."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader is allowed and told beyond where its files are."""

    columns: str = ""
    """Names of a table's columns where they are not the usual ones: ``video=path,caption=text``."""
    outside_links: bool = False
    """Links to files outside of the data root are read, as in a download cache made of links."""
    absolute_paths: bool = False
    """A table may name files by absolute paths or URIs."""
    captions: bool = True
    """False: videos alone are wanted, and a table needs no captions."""


AS_USUAL = Reading()


@dataclass(frozen=True, slots=True)
class Clip:
    """A video, or a stretch of one, and what is said of it."""

    id: str
    """Unique in its corpus."""
    path: str
    """Local path or URI of the file."""
    captions: tuple[str, ...]
    start: float = 0.0
    """Seconds from the first frame."""
    end: float | None = None
    """Seconds from the first frame; None for the end of the file."""


@dataclass(frozen=True)
class Split:
    """The clips of one split, in the annotation's order."""

    clips: tuple[Clip, ...]
    missing: tuple[str, ...] = ()
    """Ids that the annotation lists and for which no file was found."""
    expected_videos: int | None = None
    """The published count; None where there is none."""
    expected_captions: int | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def pairs(self) -> Iterator[tuple[Clip, str]]:
        """Every caption with its clip."""
        for clip in self.clips:
            for caption in clip.captions:
                yield clip, caption

    def without(self, ids: Collection[str]) -> "Split":
        """The split without some of its clips."""
        gone = set(ids)
        return replace(self, clips=tuple(clip for clip in self.clips if clip.id not in gone))


Corpus = dict[str, Split]
"""Splits by name: always ``train`` and ``test``; ``val`` where the benchmark has one."""
