"""Ray's private names: all in one file, and still in the Ray that is installed."""

import re
from pathlib import Path

from pipeline.cluster import private

ROOT = Path(__file__).resolve().parents[1]


def test_every_private_name_is_still_in_this_ray():
    assert private.missing() == []


def test_what_is_gone_is_named_with_its_purpose(monkeypatch):
    gone = {"ray.train:NotThere.method": "a test", "ray.nothing:at_all": "another"}
    monkeypatch.setattr(private, "NAMES", private.NAMES | gone)
    private.of.cache_clear()
    first, second = private.missing()
    assert first.startswith("ray.train:NotThere.method (a test)")
    assert second.startswith("ray.nothing:at_all (another)")


def test_no_other_file_reaches_into_ray():
    inside = re.compile(r"ray\.[\w.]*(_private|_internal|_raylet)|internal_kv")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for room in ("pipeline", "tcmgc", "tune_spaces")
        for path in (ROOT / room).rglob("*.py")
        if path.name != "private.py"
        for line in path.read_text().splitlines()
        if inside.search(line) and ("import" in line or "getattr" in line)
    ]
    assert found == []
