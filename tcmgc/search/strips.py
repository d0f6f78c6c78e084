"""Thumbnail strips: some frames of a window side by side."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

QUALITY = 75


def strip(pixels: UInt8[np.ndarray, "frames 3 size size"], most: int, height: int) -> bytes:
    """At most ``most`` frames at even intervals, scaled to ``height`` pixels, as one JPEG."""
    chosen = np.unique(np.linspace(0, len(pixels) - 1, min(most, len(pixels))).astype(int))
    sheet = Image.new("RGB", (height * len(chosen), height))
    for place, index in enumerate(chosen):
        picture = Image.fromarray(pixels[index].transpose(1, 2, 0))
        sheet.paste(picture.resize((height, height), Image.Resampling.BOX), (place * height, 0))
    sink = io.BytesIO()
    sheet.save(sink, "JPEG", quality=QUALITY)
    return sink.getvalue()
