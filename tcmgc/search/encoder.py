"""A model as an index uses it: videos to rows, texts to features."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tcmgc import config, model
from tcmgc.config import Config
from tcmgc.heads import record_layout
from tcmgc.search.candidates import spread
from tcmgc.search.manifest import Settings
from tcmgc.search.place import digest
from tcmgc.search.segment import Rows
from tcmgc.search.strips import strip
from tcmgc.towers import backbone
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training import checkpoint
from tcmgc.video import DecodeError, Frames, sample_frames
from tcmgc.video.sampling import Number

TOGETHER = 16
"""Windows encoded at a time."""
LONGEST = 10_000
"""Characters of a query that are read at all: far more than any text tower has positions for."""
_SHARED = ("max_words", "max_frames", "fps", "sampler")


class Encoder:
    """The model of an index.

    Args:
        settings: its config.
        retriever: the model; put into evaluation mode.
        device: where it computes.

    Raises:
        ValueError: a head whose scores do not come from records of videos.
    """

    def __init__(
        self, settings: Config, retriever: model.Retriever, device: torch.device | str = "cpu"
    ) -> None:
        self.config = settings
        self.model = retriever.eval().to(device)
        self.device = torch.device(device)
        self.head = retriever.head
        if not self.head.from_records:
            raise ValueError(
                f"{type(self.head).__name__} scores a text and a video together and keeps no record of a "
                "video, so that no index can be made with it; choose a checkpoint of another head"
            )
        self.pixels = backbone.preprocessing(settings.towers.name, settings.towers.pretrained)
        self.size = self.pixels.size
        self.spell = backbone.spelling(settings.towers.name, settings.data.max_words)
        """A query's words as the model sees them, each with the positions it takes."""
        self._count = backbone.counter(settings.towers.name)
        self._tokenise = backbone.tokenizer(settings.towers.name, settings.data.max_words)
        self.layout = record_layout(
            self.head, settings.tokens.frames_after(settings.data.max_frames)
        )

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> "Encoder":
        """From a checkpoint's folder, or an index's ``model``.

        Raises:
            ValueError: as :func:`tcmgc.training.checkpoint.load`.
        """
        settings, retriever = checkpoint.load(folder)
        return cls(settings, retriever, device)

    def sample(
        self, path: str | bytes, span: tuple[float, float], timeout: Number | None = None
    ) -> Frames:
        """The frames of a window, as the model was trained on them.

        Raises:
            DecodeError: as :func:`tcmgc.video.sample_frames`.
        """
        data = self.config.data
        return sample_frames(
            path,
            max_frames=data.max_frames,
            size=self.size,
            fps=data.fps,
            start=span[0],
            end=span[1],
            sampler=data.sampler,
            timeout=timeout,
            resize=self.pixels.resize,
            kernel=self.pixels.kernel,
        )

    def windows(
        self, path: str | bytes, spans: Sequence[tuple[float, float]], timeout: Number | None = None
    ) -> tuple[list[tuple[float, float]], list[Frames], list[str]]:
        """The windows that can be decoded, their frames, and of each that cannot the reason."""
        kept: list[tuple[float, float]] = []
        frames: list[Frames] = []
        lost: list[str] = []
        for span in spans:
            try:
                frames.append(self.sample(path, span, timeout))
                kept.append(span)
            except DecodeError as error:
                lost.append(error.reason)
        return kept, frames, lost

    @torch.inference_mode()
    def video(self, frames: Sequence[Frames]) -> VideoFeatures:
        """Features of windows."""
        most = self.config.data.max_frames
        pixels = torch.zeros(len(frames), most, 3, self.size, self.size, dtype=torch.uint8)
        mask = torch.zeros(len(frames), most, dtype=torch.bool)
        for index, one in enumerate(frames):
            pixels[index, : len(one)] = torch.from_numpy(one.pixels)
            mask[index, : len(one)] = True
        return self.model.encode_video(pixels.to(self.device), mask.to(self.device))

    @torch.inference_mode()
    def rows(
        self,
        key: bytes,
        spans: Sequence[tuple[float, float]],
        frames: Sequence[Frames],
        settings: Settings,
    ) -> Rows:
        """Rows of the windows of one video, from their frames."""
        parts = [
            self._rows(key, spans[at : at + TOGETHER], frames[at : at + TOGETHER], settings)
            for at in range(0, len(frames), TOGETHER)
        ]
        return Rows.cat(parts)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> TextFeatures:
        """Features of queries."""
        cut = [text[:LONGEST] for text in texts]
        return self.model.encode_text(self._tokenise(cut).to(self.device))

    @torch.inference_mode()
    def vectors(self, video: VideoFeatures, count: int) -> Tensor:
        """What candidates are found by, of each window."""
        vectors, mask = self.head.alone(video)
        return spread(vectors, mask, min(count, vectors.shape[1]))

    def notes(self, text: str) -> list[str]:
        """What a person should know of how the model reads a query."""
        notes = []
        foreign = _foreign(text)
        if foreign:
            notes.append(
                f"the text tower reads English in Latin letters; "
                f"it was not trained on {', '.join(foreign)}, so that results for this query mean little"
            )
        most = self.config.data.max_words
        if self._count([text[:LONGEST]])[0] > most:
            notes.append(
                f"the model reads {most - 2} tokens of a query; what comes after them is left out"
            )
        return notes

    def _rows(
        self,
        key: bytes,
        spans: Sequence[tuple[float, float]],
        frames: Sequence[Frames],
        settings: Settings,
    ) -> Rows:
        video = self.video(frames)
        kind = torch.float16 if settings.precision == "float16" else torch.float32
        record = self.head.record(video).to("cpu")
        arrays: dict[str, np.ndarray] = {
            "records": self.layout.rows(record, kind).numpy(),
            "vectors": self.vectors(video, settings.vectors).cpu().to(kind).numpy(),
        }
        times = np.full((len(frames), self.config.data.max_frames), np.nan, np.float32)
        for index, one in enumerate(frames):
            times[index, : len(one)] = one.timestamps
        arrays |= {
            "key": np.tile(np.frombuffer(key, np.uint8), (len(frames), 1)),
            "span": np.asarray(spans, np.float64),
            "times": times,
        }
        height, most = settings.strip_height, settings.strip_frames
        return Rows(arrays, tuple(strip(one.pixels, most, height) for one in frames))


def identity(folder: Path | str) -> str:
    """What tells a checkpoint's features from another's: its weights, and the settings that decide them."""
    settings = checkpoint.read_config(folder)
    values = config.to_dict(settings)
    tower = Path(folder) / checkpoint.TOWER
    decides = {
        "data": {name: values["data"][name] for name in _SHARED},
        "tower": digest(tower) if tower.is_file() else settings.towers.name,
        **{name: values[name] for name in ("tokens", "temporal", "head")},
        "weights": digest(Path(folder) / checkpoint.WEIGHTS),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def described(folder: Path | str) -> dict[str, str]:
    """A checkpoint's identity, and what it is called for people."""
    settings = config.load(Path(folder) / checkpoint.CONFIG)
    return {
        "hash": identity(folder),
        "name": Path(settings.towers.name).stem,
        "head": type(settings.head).__name__,
    }


def _foreign(text: str) -> list[str]:
    """Scripts of the letters that are not Latin, by name: CYRILLIC, CJK, ..."""
    letters = {c for c in text[:LONGEST] if c.isalpha()}
    scripts = {unicodedata.name(c, "an unknown script").split(" ")[0] for c in letters}
    return sorted(s.title() for s in scripts - {"LATIN", "FEMININE", "MASCULINE", "MICRO"})
