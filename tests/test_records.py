"""Records as rows, and scoring them block by block."""

from pathlib import Path

import numpy as np
import pytest
import torch
from head_cases import FRAMES, SIZES, VIDEOS, make, shaken, texts, videos

from tcmgc.config import XClipHead, XPoolHead
from tcmgc.heads import Head, XClip, XPool, record_layout, scan, score_tiled


def heads() -> dict[str, Head]:
    return {
        "tcmgc": make(),
        "tcmgc, four heads": make(heads=4),
        "tcmgc, plain frames": make(text_conditioned=False),
        "xclip": shaken(XClip(XClipHead(), SIZES)),
        "xpool": shaken(XPool(XPoolHead(), SIZES)),
    }


@pytest.mark.parametrize("name", heads())
def test_rows_on_disk_give_the_same_similarities(name: str, tmp_path: Path) -> None:
    head, text, video = heads()[name].float().eval(), texts(), videos(dtype=torch.float32)
    text = text.map(lambda x: x.float() if x.is_floating_point() else x)
    with torch.no_grad():
        record = head.record(video)
        expected = score_tiled(head, text, record).similarity
        layout = record_layout(head, FRAMES)
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float16, 3e-3)):
            rows = layout.rows(record, dtype)
            assert rows.nbytes == VIDEOS * layout.bytes(dtype)
            path = tmp_path / f"{dtype}.npy"
            np.save(path, rows.numpy())
            mapped = torch.from_numpy(np.load(path, mmap_mode="c"))
            blocks = (layout.record(mapped[start : start + 2]) for start in range(0, VIDEOS, 2))
            found = torch.cat(list(scan(head, text, blocks)), 1)
            assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_rows_that_do_not_fit_are_named() -> None:
    head = make().float().eval()
    with torch.no_grad():
        record = head.record(videos(dtype=torch.float32))
    layout = record_layout(head, FRAMES)
    with pytest.raises(ValueError, match=f"{layout.numbers} numbers a video"):
        layout.record(torch.zeros(2, layout.numbers + 1))
    with pytest.raises(ValueError, match="as many frames"):
        record_layout(head, FRAMES + 1).rows(record)
    record.outputs[1] *= 1e6
    assert layout.rows(record, torch.float32).isfinite().all()
    with pytest.raises(ValueError, match=r"video 1 .*torch\.float32"):
        layout.rows(record)
