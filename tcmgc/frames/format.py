"""Encoding of frames in the cache: raw pixels, or JPEG."""

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

FrameFormat = Literal["raw", "jpeg"]

JPEG_QUALITY = 95


def encode(
    pixels: UInt8[np.ndarray, "frames 3 size size"], frame_format: FrameFormat
) -> list[memoryview]:
    """Each frame's bytes. JPEG: quality 95, chroma at full resolution."""
    if frame_format == "raw":
        return [np.ascontiguousarray(frame).data.cast("B") for frame in pixels]
    coded = []
    for frame in pixels:
        sink = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
        image.save(sink, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        coded.append(sink.getbuffer())
    return coded


def decode(
    data: memoryview, lengths: Sequence[int], out: UInt8[np.ndarray, "frames 3 size size"]
) -> None:
    """Fill ``out`` from a record of JPEG frames, ``lengths`` bytes each."""
    begin = 0
    for place, length in enumerate(lengths):
        with Image.open(io.BytesIO(data[begin : begin + length])) as image:
            out[place] = np.asarray(image).transpose(2, 0, 1)
        begin += length
