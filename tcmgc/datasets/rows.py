"""The row type that every reader returns, and the type of a split."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Reading:
    """Options of a reader in addition to the location of its files."""

    columns: str = ""
    """Names of a table's columns if they are not the default ones: ``video=path,caption=text``."""
    outside_links: bool = False
    """Read links to files outside of the data root, as in a download cache that consists of links."""
    absolute_paths: bool = False
    """Allow a table to name files by absolute paths or URIs."""
    captions: bool = True
    """False: only videos are needed, and a table needs no captions."""


AS_USUAL = Reading()


@dataclass(frozen=True, slots=True)
class Clip:
    """A video, or a section of one, with its captions."""

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
    """Listed ids for which no file was found."""
    expected_videos: int | None = None
    """The published count; None if there is none."""
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
"""Splits by name: always ``train`` and ``test``; ``val`` if the benchmark has one."""
