"""A corpus in a bucket reads as the same corpus on disk does."""

from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import fs

from tcmgc import storage
from tcmgc.datasets import demo_corpus, read


def test_a_bucket(tmp_path: Path, bucket: str) -> None:
    root = demo_corpus.make(tmp_path / "demo", videos=6, test=2)
    (root / "videos/all/video1.mp4").unlink()
    base = storage.join(bucket, "sets/demo")
    system, inner = storage.resolve(base)
    fs.copy_files(str(root), inner, fs.LocalFileSystem(), system, use_threads=False)

    remote = read("demo", base)
    for name, split in read("demo", str(root)).items():
        for mine, theirs in zip(remote[name].clips, split.clips, strict=True):
            place = Path(theirs.path).relative_to(root)
            assert mine == replace(theirs, path=storage.join(base, str(place)))
    assert remote["train"].missing == ("video1",)

    nowhere = storage.join(bucket, "none")
    with pytest.raises(ValueError, match=f"the data root {storage.plain(nowhere)} is not there"):
        read("demo", nowhere)
