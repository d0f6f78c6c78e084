"""From a decoded frame to CLIP's square input."""

from typing import Literal

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from jaxtyping import UInt8

_BICUBIC = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT  # the same pixels on all processors
)

_BILINEAR = (_BICUBIC & ~Interpolation.BICUBIC) | Interpolation.BILINEAR

Resize = Literal["shortest", "squash"]
"""Scale the shorter side and crop the centre, or scale both sides to the square."""
Kernel = Literal["bicubic", "bilinear"]

_BT2020_CONSTANT, _DERIVED = 10, (12, 13)
_NOT_YCBCR = {
    8: "YCgCo",
    11: "SMPTE ST 2085, YDzDx",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
"""Matrix codes of ITU-T H.273, table 4, that swscale has no coefficients for, in three kinds."""
_BY_PRIMARIES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    6: Colorspace.SMPTE240M,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
"""The matrix that follows from the primaries; else ITU-R BT.601's, which is also used for
an unspecified tag."""

Turn = tuple[Literal[0, 1], Literal[0, 1], Literal[0, 1]]
"""A display matrix's operations: swap the axes, then mirror rows (top-bottom), then columns."""


def square(
    frame: av.VideoFrame,
    size: int,
    scaler: VideoReformatter,
    resize: Resize = "shortest",
    kernel: Kernel = "bicubic",
) -> UInt8[np.ndarray, "3 size size"]:
    """RGB with the shorter side scaled to ``size`` and the centre cropped; or both sides scaled to it.

    The longer side becomes int(size * long / short), the crop begins at round(rest / 2), as in
    torchvision's Resize and CenterCrop. Scaling and conversion from YUV to RGB are one pass
    of swscale, with the frame's tagged matrix. The result is rotated by the display matrix;
    pixels count as square (as in OpenCV's readers, a sample aspect ratio is not applied).
    """
    short, long = sorted((frame.width, frame.height))
    scaled = int(size * long / short)
    width, height = (size, scaled) if frame.width == short else (scaled, size)
    if resize == "squash":
        width = height = size
    rgb = scaler.reformat(
        frame,
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=_matrix(frame),
        interpolation=_BICUBIC if kernel == "bicubic" else _BILINEAR,
        threads=1,
    )
    image = turn(rgb.to_ndarray(), display_turn(frame))
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + size, left : left + size].transpose(2, 0, 1))


def _matrix(frame: av.VideoFrame) -> Colorspace | None:
    """The matrix for converting the frame, if it differs from the tagged one; None: the tagged one.

    Constant luminance differs from the same primaries' usual matrix in shades only, and a matrix
    derived from primaries is that of the standard with these primaries (ITU-T H.273, 8.3).

    Raises:
        ValueError: not a YCbCr matrix.
    """
    code = int(frame.colorspace)
    if code == _BT2020_CONSTANT:
        return Colorspace.BT2020
    if code in _DERIVED:
        return _BY_PRIMARIES.get(int(frame.color_primaries), Colorspace.ITU601)
    if code in _NOT_YCBCR:
        raise ValueError(
            f"colour matrix {code} ({_NOT_YCBCR[code]}) is not read here; where the tag is wrong, "
            "set it right with a metadata filter such as h264_metadata=matrix_coefficients=1"
        )
    return None


def display_turn(frame: av.VideoFrame) -> Turn:
    """The eighth-turn symmetry nearest to the frame's display matrix.

    Row vector times matrix [[a, b, 0], [c, d, 0], [x, y, 1]] gives the position on screen
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
    """The image as shown on screen."""
    swap, rows, columns = how
    if swap:
        image = image.transpose(1, 0, 2)
    if rows:
        image = image[::-1]
    return image[:, ::-1] if columns else image
