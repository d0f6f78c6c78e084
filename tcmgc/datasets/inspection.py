"""Inspect a data set file by file and report problems. No file is changed."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tcmgc import storage
from tcmgc.datasets import Clip, Corpus, Split, describe_split
from tcmgc.video import DecodeError, Frames, VideoInfo, probe

SMALL = 100
"""Number of test videos below which recalls are coarse."""

Decode = Callable[[Clip, float], Frames | DecodeError]


@dataclass(frozen=True)
class FileReport:
    """The inspection of one file."""

    path: str
    digest: str = ""
    """SHA-256 of its content; empty if it could not be read."""
    info: VideoInfo | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    """Reasons for clips that cannot be decoded, by clip id."""


@dataclass(frozen=True)
class SplitReport:
    """The state of a split's files and captions."""

    split: Split
    files: tuple[FileReport, ...]
    unreadable: Mapping[str, str]
    """Reasons by clip id."""
    positions: Sequence[int]
    """Token positions of every caption, start and end included, uncut."""

    @property
    def expected(self) -> int:
        """Number of videos that the split should have, as listed or as published."""
        listed = len(self.split) + len(self.split.missing)
        return max(listed, self.split.expected_videos or 0)

    @property
    def lacking(self) -> int:
        """Number of expected videos that cannot be used."""
        return self.expected - (len(self.split) - len(self.unreadable))


@dataclass(frozen=True)
class Leak:
    """A clip whose video is also in another split."""

    split: str
    id: str
    other_split: str
    other_id: str
    identical: str
    """``file`` or ``content``."""

    def __str__(self) -> str:
        return (
            f"{self.split} {self.id} has the same {self.identical} as {self.other_split} "
            f"{self.other_id}"
        )


def inspect_file(
    path: str, clips: Sequence[Clip], timeout: float, decode: Decode | None = None
) -> FileReport:
    """Hash a file, read its headers, and decode its clips as training would.

    Args:
        path: The file.
        clips: The clips that are cut from it.
        timeout: Seconds that each step may take.
        decode: How training decodes; None: check only headers, packets and the first picture.
    """
    try:
        digest, info = _digest(path), probe(path, timeout)
    except DecodeError as error:
        return FileReport(path, errors={clip.id: error.reason for clip in clips})
    results = [] if decode is None else [(clip.id, decode(clip, timeout)) for clip in clips]
    errors = {id: result.reason for id, result in results if isinstance(result, DecodeError)}
    return FileReport(path, digest, info, errors)


def by_file(corpus: Corpus) -> dict[str, list[Clip]]:
    """The clips of all splits by their file."""
    files: dict[str, list[Clip]] = {}
    for split in corpus.values():
        for clip in split.clips:
            files.setdefault(clip.path, []).append(clip)
    return files


def report(
    corpus: Corpus, files: Iterable[FileReport], positions: Mapping[str, int]
) -> dict[str, SplitReport]:
    """Summarise the inspection by split.

    Args:
        corpus: What the annotations list.
        files: A report on every file of it.
        positions: Token positions by caption.
    """
    seen = {file.path: file for file in files}
    reports = {}
    for name, split in corpus.items():
        mine = [seen[path] for path in dict.fromkeys(clip.path for clip in split.clips)]
        unreadable = {
            clip.id: seen[clip.path].errors[clip.id]
            for clip in split.clips
            if clip.id in seen[clip.path].errors
        }
        lengths = [positions[caption] for _, caption in split.pairs()]
        reports[name] = SplitReport(split, tuple(mine), unreadable, lengths)
    return reports


def leaks(corpus: Corpus, files: Iterable[FileReport]) -> list[Leak]:
    """Clips of a later split whose file, or whose file's content, an earlier split has too.

    Content is compared by SHA-256; re-encoded videos are not found.
    """
    digests = {file.path: file.digest for file in files}
    by_path: dict[str, tuple[str, str]] = {}
    by_digest: dict[str, tuple[str, str]] = {}
    found = []
    for name, split in corpus.items():
        for clip in split.clips:
            digest = digests[clip.path]
            owner = by_path.setdefault(clip.path, (name, clip.id))
            same = by_digest.setdefault(digest, (name, clip.id)) if digest else owner
            if owner[0] != name:
                found.append(Leak(name, clip.id, *owner, "file"))
            elif same[0] != name:
                found.append(Leak(name, clip.id, *same, "content"))
    return found


def suspects(corpus: Corpus, sizes: Mapping[str, int]) -> list[str]:
    """Files with the same size as a file of another split, which may have the same content.

    Args:
        corpus: What the annotations list.
        sizes: Bytes by path.
    """
    owners: dict[int, set[str]] = {}
    for name, split in corpus.items():
        for clip in split.clips:
            owners.setdefault(sizes[clip.path], set()).add(name)
    paths = (clip.path for split in corpus.values() for clip in split.clips)
    return [path for path in dict.fromkeys(paths) if len(owners[sizes[path]]) > 1]


def digest_report(path: str) -> FileReport:
    """A report with only the hash of a file's content; without it if the file cannot be read."""
    try:
        return FileReport(path, _digest(path))
    except DecodeError:
        return FileReport(path)


def remarks(corpus: Corpus, lengths: Mapping[str, Sequence[int]], max_words: int) -> list[str]:
    """Remarks that do not prevent training but should be known before it, one line each.

    Args:
        corpus: What the annotations list.
        lengths: Positions of some of each split's captions.
        max_words: Positions that are kept.
    """
    said = []
    for name, split in corpus.items():
        if len(split) == 1:
            said.append(
                f"{name} has one video: it is found by whatever is asked, and every recall is 100 %"
            )
        elif name == "test" and 1 < len(split) < SMALL:
            said.append(
                f"test has {len(split)} videos, fewer than {SMALL}: R@1 is {100 / len(split):.1f} % "
                f"by chance, and one video more or less found is {100 / len(split):.1f} points"
            )
    for name, positions in lengths.items():
        if cut := sum(count > max_words for count in positions):
            said.append(
                f"{name}: {cut} of {len(positions)} captions looked at ({cut / len(positions):.1%}) "
                f"are cut at data.max_words {max_words}"
            )
    return said


def format_report(name: str, one: SplitReport, max_words: int) -> str:
    """A split's part of the page."""
    lines = [f"{name}: {describe_split(one.split)}"]
    if one.unreadable:
        first = [f"{id}: {reason}" for id, reason in list(one.unreadable.items())[:3]]
        more = [f"… and {len(one.unreadable) - 3} more"] if len(one.unreadable) > 3 else []
        lines.append(f"  unreadable  {len(one.unreadable)}")
        lines += [f"              {line}" for line in [*first, *more]]
    infos = [file.info for file in one.files if file.info is not None]
    if infos:
        seconds, sizes = [info.duration for info in infos], [info.size for info in infos]
        rates = [info.frame_rate for info in infos]
        lines += [
            f"  durations   {_spread(seconds, 's')}, {sum(seconds) / 3600:.2f} hours in all",
            f"  sizes       {_bytes(min(sizes))} to {_bytes(max(sizes))}, "
            f"median {_bytes(float(np.median(sizes)))}, {_bytes(sum(sizes))} in all",
            f"  pictures    {_most([f'{info.width}x{info.height}' for info in infos])}",
            f"  rates       {_spread(rates, 'frames a second')}",
            f"  codecs      {_most([f'{info.codec} ({info.container})' for info in infos])}",
        ]
        late = {file.path: file.info.lost_start for file in one.files if file.info}
        late = {path: lost for path, lost in late.items() if lost}
        if late:
            named = ", ".join(f"{path} by {lost:.2f} s" for path, lost in list(late.items())[:3])
            lines.append(
                f"  begin late  {len(late)}: a cut removed data that their first pictures need; "
                f"times count from the first whole one ({named}{', …' if len(late) > 3 else ''})"
            )
    if one.positions:
        cut = sum(count > max_words for count in one.positions)
        lines.append(
            f"  captions    {_spread(one.positions, 'positions')}; {cut} of {len(one.positions)} "
            f"({cut / len(one.positions):.1%}) are cut at data.max_words {max_words}"
        )
    return "\n".join(lines)


def problems(
    reports: Mapping[str, SplitReport], found: Iterable[Leak]
) -> list[tuple[str, str, str, str]]:
    """Everything that is wrong as rows: split, id, kind (missing, unreadable, leak), details."""
    rows = []
    for name, one in reports.items():
        rows += [(name, id, "missing", "no such file") for id in one.split.missing]
        rows += [(name, id, "unreadable", reason) for id, reason in one.unreadable.items()]
    return rows + [(leak.split, leak.id, "leak", str(leak)) for leak in found]


def verdict(
    reports: Mapping[str, SplitReport],
    found: Sequence[Leak],
    *,
    allow_missing: int = 0,
    allow_leaks: int = 0,
    allow_share: float = 0.0,
    remedies: bool = True,
) -> list[str]:
    """Reasons against training on it: splits with too many missing videos, leaks.

    Args:
        reports: By split.
        found: Clips whose video is in two splits.
        allow_missing: Videos that each split may lack.
        allow_leaks: Clips that may be in two splits.
        allow_share: Share of its videos that each split but the test may lack.
        remedies: Say which option of ``check_data.py`` accepts it.
    """
    against = []
    for name, one in reports.items():
        share = 0.0 if name == "test" else allow_share
        if one.lacking > max(allow_missing, share * one.expected):
            line = (
                f"{name} lacks {one.lacking} videos ({len(one.split.missing)} missing, "
                f"{len(one.unreadable)} unreadable"
                + (f", {_unlisted(one)} not listed" if _unlisted(one) else "")
            )
            accept = f"; --allow-missing {one.lacking} accepts that" if remedies else ""
            against.append(f"{line}){accept}")
    if len(found) > allow_leaks:
        accept = f"; --allow-leaks {len(found)} accepts that" if remedies else ""
        against.append(f"{len(found)} videos are in two splits{accept}")
    return against


def _unlisted(one: SplitReport) -> int:
    return one.lacking - len(one.split.missing) - len(one.unreadable)


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    try:
        system, inner = storage.resolve(path)
        with system.open_input_stream(inner) as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise DecodeError(path, str(error)) from error
    return digest.hexdigest()


def _spread(values: Sequence[float] | Sequence[int], unit: str) -> str:
    low, middle, high = np.quantile(values, (0.0, 0.5, 1.0))
    return f"{low:.3g} to {high:.3g} {unit}, median {middle:.3g}"


def _bytes(count: float | int) -> str:
    power = 0 if count < 1 else min(int(math.log2(count) // 10), 4)
    return f"{count / 2 ** (10 * power):.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _most(names: Sequence[str]) -> str:
    counts = Counter(names).most_common()
    shown = ", ".join(f"{name} {count}" for name, count in counts[:4])
    return shown + (f", and {len(counts) - 4} others" if len(counts) > 4 else "")
