"""A corpus behind s3:// reads as the same corpus on disk does."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tcmgc import demo
from tcmgc.datasets import read


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """Root and query of a bucket's URI, on a server in this process."""
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield (
        "s3://corpus",
        f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true",
    )
    server.stop()


def test_s3(tmp_path: Path, bucket: tuple[str, str]) -> None:
    from pyarrow import fs

    base, query = bucket
    root = demo.make(tmp_path / "demo", videos=6, test=2)
    (root / "videos/all/video1.mp4").unlink()
    system, _ = fs.FileSystem.from_uri(base + query)
    system.create_dir("corpus")
    fs.copy_files(str(root), "corpus/sets/demo", fs.LocalFileSystem(), system, use_threads=False)

    remote = read("demo", f"{base}/sets/demo{query}")
    for name, split in read("demo", str(root)).items():
        for mine, theirs in zip(remote[name].clips, split.clips, strict=True):
            place = Path(theirs.path).relative_to(root)
            assert mine == replace(theirs, path=f"{base}/sets/demo/{place}{query}")
    assert remote["train"].missing == ("video1",)

    with pytest.raises(ValueError, match=r"the data root s3://corpus/none is not there"):
        read("demo", f"{base}/none{query}")
