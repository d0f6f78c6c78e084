"""From a decoded frame to the square that CLIP sees."""

from typing import Literal

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

_BICUBIC = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT  # the same pixels whatever the processor's vector units
)

Turn = tuple[Literal[0, 1], Literal[0, 1], Literal[0, 1]]
"""What a display matrix asks for: swap the axes, then mirror rows (top-bottom), then columns."""


def square(
    frame: av.VideoFrame, size: int, scaler: VideoReformatter
) -> UInt8[np.ndarray, "3 size size"]:
    """RGB with the shorter side scaled to ``size`` (bicubic) and the centre cut out.

    The longer side becomes int(size * long / short), the cut begins at round(rest / 2), as
    torchvision's Resize and CenterCrop have it. Scaling and the step from YUV to RGB are one pass
    of swscale, by the matrix that the frame is tagged with. Turned by the display matrix;
    pixels count as square (a sample aspect ratio is not applied, as OpenCV's readers do not).
    """
    short, long = sorted((frame.width, frame.height))
    scaled = int(size * long / short)
    width, height = (size, scaled) if frame.width == short else (scaled, size)
    rgb = scaler.reformat(
        frame, width=width, height=height, format="rgb24", interpolation=_BICUBIC, threads=1
    )
    image = turn(rgb.to_ndarray(), display_turn(frame))
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + size, left : left + size].transpose(2, 0, 1))


def display_turn(frame: av.VideoFrame) -> Turn:
    """The eighth-turn symmetry nearest to the frame's display matrix.

    Row vector times matrix [[a, b, 0], [c, d, 0], [x, y, 1]] gives the place on screen
    (ISO/IEC 14496-12, 6.2.2); angles other than quarter turns are rounded to them.
    """
    side_data = frame.side_data.get(SideDataType.DISPLAYMATRIX)  # type: ignore[call-overload]
    if side_data is None:
        return 0, 0, 0
    a, b, _, c, d, *_ = np.frombuffer(bytes(side_data), dtype=np.int32).astype(np.int64)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return 1, int(b < 0), int(c < 0)  # type: ignore[return-value]
    return 0, int(d < 0), int(a < 0)  # type: ignore[return-value]


def turn(
    image: UInt8[np.ndarray, "rows columns channels"], how: Turn
) -> UInt8[np.ndarray, "_ _ channels"]:
    """The image as it stands on screen."""
    swap, rows, columns = how
    if swap:
        image = image.transpose(1, 0, 2)
    if rows:
        image = image[::-1]
    return image[:, ::-1] if columns else image
