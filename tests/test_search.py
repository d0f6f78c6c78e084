"""The library's side of search: windows, versions of an index, and queries."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from search_cases import LENGTHS, SETTINGS, build, make_videos, names, save_model, update

from tcmgc.config import (
    HeadOptions,
    MeanHead,
    MeanMaxHead,
    Reorganise,
    TcMgcHead,
    TightHead,
    TokenSelectionHead,
    Windowing,
    WtiHead,
    XClipHead,
    XPoolHead,
)
from tcmgc.search import Filters, Index, Settings, Writer, calibration, like_file, like_windows
from tcmgc.search import build as in_process
from tcmgc.search import folder as folders
from tcmgc.search.calibration import Calibration
from tcmgc.search.candidates import Codes, spread
from tcmgc.search.check import damage, recall
from tcmgc.search.encoder import Encoder
from tcmgc.search.place import Place
from tcmgc.video import sample_frames


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tower: str) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "checkpoint", tower)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_videos(tmp_path_factory.mktemp("videos"))
    make_videos(root, {"long.mp4": 70}, rate=1)
    return root


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, videos: Path, model: Path) -> Index:
    return build(tmp_path_factory.mktemp("index") / "one", videos, model)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Videos that a test may change."""
    return make_videos(tmp_path / "videos")


# Windows


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0.5, [(0, 0.5)]),
        (30.0, [(0, 30)]),
        (31.0, [(0, 30), (1, 31)]),
        (45.0, [(0, 30), (15, 45)]),
        (70.0, [(0, 30), (15, 45), (30, 60), (40, 70)]),
    ],
)
def test_windows(duration: float, expected: list[tuple[float, float]]) -> None:
    assert Windowing().cut(duration) == tuple(expected)


def test_every_moment_of_length_minus_hop_lies_whole_in_a_window() -> None:
    windows = Windowing(length=10.0, hop=4.0)
    for duration in np.linspace(6.0, 60.0, 55):
        cut = windows.cut(float(duration))
        for start in np.linspace(0, duration - 6.0, 40):
            assert any(a <= start + 1e-9 and start + 6.0 <= b + 1e-9 for a, b in cut)


@pytest.mark.parametrize(("length", "hop"), [(0, 1), (-1, 1), (10, 0), (10, 11)])
def test_windows_that_would_miss_something_are_refused(length: float, hop: float) -> None:
    with pytest.raises(ValueError, match="window"):
        Windowing(length, hop)


# Scores


@pytest.mark.parametrize(
    "head",
    [
        TcMgcHead(),
        TcMgcHead(text_conditioned=False, reorganise=Reorganise(keep_rate=0.5)),
        MeanHead(),
        MeanMaxHead(),
        XPoolHead(),
        XClipHead(),
        WtiHead(),
        TokenSelectionHead(),
    ],
    ids=lambda head: type(head).__name__,
)
def test_scores_are_the_models_own(
    head: HeadOptions, tower: str, videos: Path, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "model", tower, head)
    settings = dataclasses.replace(SETTINGS, precision="float32")
    index = build(tmp_path / "index", videos, model, settings)
    encoder = Encoder.load(model)
    texts = ["a red ball", "the sea at night"]
    answers = index.search(texts, 10)
    with torch.inference_mode():
        for text, answer in zip(texts, answers, strict=True):
            for match in answer.matches:
                span = (match.moment.start, match.moment.end)
                frames = sample_frames(match.file.path, 4, 32, start=span[0], end=span[1])
                video = encoder.video([frames])
                score = encoder.head.score(
                    encoder.texts([text]), encoder.head.record(video), encoder.model.scale()
                )
                assert match.moment.score == pytest.approx(score.similarity.item(), abs=2e-5)
    assert [len(answer.matches) for answer in answers] == [4, 4]


def test_a_head_that_scores_pairs_together_is_refused(tower: str, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", tower, TightHead(layers=1, heads=2))
    with pytest.raises(ValueError, match="Tight scores a text and a video together"):
        Encoder.load(model)


def test_half_precision_changes_scores_by_its_rounding_only(
    index: Index, videos: Path, model: Path, tmp_path: Path
) -> None:
    full = build(
        tmp_path / "full", videos, model, dataclasses.replace(SETTINGS, precision="float32")
    )
    text = index.encoder.texts(["a red ball", "snow"])
    assert (index.scores(text) - full.scores(text)).abs().max() < 2e-3
    half, whole = (sum(part.bytes for part in i.version.segments) for i in (index, full))
    assert half < whole


def test_the_best_moment_stands_for_a_video(index: Index) -> None:
    (answer,) = index.search("a red ball", 10)
    (long,) = [match for match in answer.matches if match.file.path.endswith("long.mp4")]
    scores = index.scores(index.encoder.texts(["a red ball"]))[0]
    windows = index.windows_of(long.file.key)
    assert len(windows) == 4
    assert long.moment.score == pytest.approx(scores[windows].max().item())
    for other in long.others:
        assert other.end <= long.moment.start or other.start >= long.moment.end
    order = [match.moment.score for match in answer.matches]
    assert order == sorted(order, reverse=True)


def test_some_windows_score_as_all_do(index: Index) -> None:
    text = index.encoder.texts(["a red ball"])
    some = np.array([1, 2, 5])
    assert torch.allclose(index.scores(text, some), index.scores(text)[:, some], atol=1e-6)


def test_two_stages_find_what_exact_scores_find(index: Index) -> None:
    whole = names(index, exact=True)
    assert names(index, exact=False, candidates=6) == whole
    (answer,) = index.search("a red ball", 2, exact=False, candidates=2)
    assert answer.scored == 2
    (all_but_one,), _ = recall(index, ["a red ball", "snow"], counts=(6,))
    assert all_but_one.candidates == 6
    assert 6 / 7 - 1e-9 <= all_but_one.recall <= 1


def test_compressed_vectors_keep_the_nearest() -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(4000, 64) + 1, dim=-1)
    queries = torch.nn.functional.normalize(vectors[:20] + 0.05 * torch.randn(20, 64), dim=-1)
    codes = Codes.train(vectors[:2000])
    codes.add(vectors[:3000])
    again = Codes.load(codes.save())
    again.add(vectors[3000:])
    assert len(again) == 4000
    best = (queries @ vectors.T).topk(10).indices
    _, places = again.search(queries, 200)
    found = [np.isin(row, near).mean() for row, near in zip(best.numpy(), places, strict=True)]
    assert np.mean(found) > 0.9
    with pytest.raises(ValueError, match=r"."):
        Codes.load(codes.save()[:100])


def test_chosen_vectors_lie_far_apart() -> None:
    near, far = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    window = torch.stack([near, near, far, near])
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert spread(window[None], mask, 2)[0].tolist() == [near.tolist(), far.tolist()]
    hidden = torch.tensor([[True, True, False, True]])
    assert spread(window[None], hidden, 2)[0].tolist() == [near.tolist()] * 2


# Queries


def test_filters(index: Index, videos: Path) -> None:
    assert names(index, filters=Filters(longer_than=10.0)) == ["long.mp4"]
    assert set(names(index, filters=Filters(shorter_than=10.0))) == set(LENGTHS)
    assert set(names(index, filters=Filters(folder=str(videos)))) == {*LENGTHS, "long.mp4"}
    assert names(index, filters=Filters(folder=str(videos)[:-1])) == []
    assert names(index, filters=Filters(after=2e10)) == []
    assert len(names(index, filters=Filters(before=2e10))) == 4


def test_more_like_this(index: Index, videos: Path, tmp_path: Path) -> None:
    path = str(videos / "a.mp4")
    row = index.file_at(path)
    assert row is not None
    known = index.search(None, 10, like=like_file(index, path))[0]
    same = index.search(None, 10, like=like_windows(index, index.windows_of(row[1].key)))[0]
    assert known == same
    assert "a.mp4" not in [Path(m.file.path).name for m in known.matches]
    assert known.close is None
    stranger = shutil.copy(path, tmp_path / "elsewhere.mp4")
    found = index.search(None, 10, like=like_file(index, str(stranger)))[0]
    assert [m.file.path for m in found.matches] == [m.file.path for m in known.matches]


def test_negative_text_takes_away_what_fits_it(index: Index) -> None:
    plain = index.search("a red ball", 10)[0]
    same = index.search("a red ball", 10, without="a red ball")[0]
    other = index.search("a red ball", 10, without="the sea at night")[0]
    assert {m.file.path for m in plain.matches} == {m.file.path for m in same.matches}
    by_path = {m.file.path: m.moment.score for m in plain.matches}
    for match in other.matches:
        assert match.moment.score <= by_path[match.file.path] + 1e-6
    # What is wanted and not wanted alike loses what it is above the mean.
    assert same.matches[0].moment.score <= plain.matches[0].moment.score


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_query_is_refused(index: Index, text: str) -> None:
    with pytest.raises(ValueError, match="the query is empty"):
        index.search(text)


def test_numbers_out_of_range_are_refused(index: Index) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        index.search("a ball", 0)
    with pytest.raises(ValueError, match="candidates"):
        index.search("a ball", candidates=0)
    with pytest.raises(ValueError, match="nothing to search by"):
        index.search(None)


def test_what_the_tower_cannot_read_is_said(index: Index) -> None:
    (answer,) = index.search("собака прыгает в воду")
    assert any("Cyrillic" in note for note in answer.notes)
    assert len(answer.matches) == 4
    (answer,) = index.search("a café by the sea")
    assert answer.notes == ()
    (answer,) = index.search("word " * 100_000)
    assert any("10 tokens" in note for note in answer.notes)


def test_everyday_queries_are_many_and_give_a_place(index: Index) -> None:
    queries = calibration.queries()
    assert len(set(queries)) == calibration.COUNT
    found = calibration.calibrate(index)
    assert found is not None
    assert found.windows == 7
    assert found.place(-2.0) == 0.0
    assert found.place(2.0) == 1.0
    assert found.place(found.best[128]) == pytest.approx(0.5, abs=0.02)
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert not found.stale(8)
    assert found.stale(70)


# Versions


def test_only_what_changed_is_encoded(mine: Path, model: Path, tmp_path: Path) -> None:
    writer = Writer.create(Place(str(tmp_path / "index")), model, SETTINGS)
    assert update(writer, mine) == ["a.mp4", "b.mp4", "c.mp4"]
    assert update(writer, mine) == []
    (mine / "sub").mkdir()
    shutil.move(mine / "a.mp4", mine / "sub/moved.mp4")
    shutil.copy(mine / "b.mp4", mine / "copy.mp4")
    make_videos(mine, {"c.mp4": 55, "d.mp4": 65})
    assert update(writer, mine) == ["c.mp4", "d.mp4"]
    index = Index.open(str(tmp_path / "index"))
    assert sorted(names(index)) == ["b.mp4", "c.mp4", "d.mp4", "moved.mp4"]
    (match,) = [m for m in index.search("a")[0].matches if m.file.path.endswith("b.mp4")]
    assert match.copies == (str(mine / "copy.mp4"),)
    (mine / "b.mp4").unlink()
    os.utime(mine / "d.mp4", (1, 1))
    assert update(writer, mine) == []
    assert sorted(names(index.refreshed())) == ["c.mp4", "copy.mp4", "d.mp4", "moved.mp4"]


def test_a_subfolder_alone_leaves_the_rest(mine: Path, model: Path, tmp_path: Path) -> None:
    writer = Writer.create(Place(str(tmp_path / "index")), model, SETTINGS)
    update(writer, mine)
    make_videos(mine / "sub", {"d.mp4": 65})
    (mine / "a.mp4").unlink()
    assert update(writer, mine / "sub") == ["d.mp4"]
    assert len(names(Index.open(str(tmp_path / "index")))) == 4


def test_a_reader_keeps_its_version(
    mine: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcmgc.search.writer.GRACE", 0.0)
    index = build(tmp_path / "index", mine, model)
    writer = Writer.open(index.place)
    (mine / "a.mp4").unlink()
    (mine / "b.mp4").unlink()
    update(writer, mine)
    assert writer.compact()
    writer.calibrate({})
    assert not (tmp_path / "index" / index.version.segments[0].name).exists()
    assert sorted(names(index)) == ["a.mp4", "b.mp4", "c.mp4"]
    assert [m.state for m in index.search("a")[0].matches].count("missing") == 2
    new = dataclasses.replace(writer.version, calibration=None)
    new.save(writer.place)
    assert names(index.refreshed()) == ["c.mp4"]


def test_small_segments_are_put_together(
    mine: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcmgc.search.writer.SMALL", 2)
    writer = Writer.create(Place(str(tmp_path / "index")), model, SETTINGS)
    for name in LENGTHS:
        (tmp_path / "one" / name).mkdir(parents=True)
        shutil.copy2(mine / name, tmp_path / "one" / name)
        update(writer, tmp_path / "one")
    before = Index.open(str(tmp_path / "index"))
    assert len(before.segments) == 3
    assert writer.compact()
    assert not writer.compact()
    after = before.refreshed()
    assert len(after.segments) == 1
    for (one,), (other,) in zip(
        (before.search("a red ball"),), (after.search("a red ball"),), strict=True
    ):
        assert [(m.file.path, m.moment.score) for m in one.matches] == [
            (m.file.path, pytest.approx(m.moment.score)) for m in other.matches
        ]
    segment, row = after.at(0)
    assert segment.strip(row)[:2] == b"\xff\xd8"


def test_what_a_killed_writer_left_is_removed(mine: Path, model: Path, tmp_path: Path) -> None:
    index = build(tmp_path / "index", mine, model)
    left = [
        tmp_path / "index/segments/9-half.safetensors",
        tmp_path / "index/segments/9.safetensors.abc.partial",
        tmp_path / "index/files-9.parquet",
    ]
    for path in left:
        path.write_bytes(b"half")
    assert len(Index.open(str(tmp_path / "index"))) == len(index)
    writer = Writer.open(index.place)
    assert not any(path.exists() for path in left)
    assert update(writer, mine) == []


def test_a_full_disk_leaves_the_version_before(
    mine: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = build(tmp_path / "index", mine, model)
    writer = Writer.open(index.place)
    make_videos(mine, {"d.mp4": 65})
    whole = Place.put

    def full(place: Place, name: str, write: object) -> None:
        if name.startswith("files-"):
            raise OSError(28, "No space left on device")
        whole(place, name, write)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Place, "put", full)
        with pytest.raises(OSError, match="No space"):
            update(writer, mine)
    assert index.refreshed() is index
    assert writer.commit()
    assert len(names(index.refreshed())) == 4


def test_a_damaged_segment_is_named_and_made_anew(mine: Path, model: Path, tmp_path: Path) -> None:
    writer = Writer.create(Place(str(tmp_path / "index")), model, SETTINGS)
    update(writer, mine)
    make_videos(mine, {"d.mp4": 65})
    update(writer, mine)
    first = tmp_path / "index" / writer.version.segments[0].name
    first.write_bytes(first.read_bytes()[:-10])
    index = Index.open(str(tmp_path / "index"))
    assert names(index) == ["d.mp4"]
    (problem,) = index.problems
    assert str(first) in problem
    again = Writer.open(index.place)
    assert len(again.damaged) == 1
    assert update(again, mine) == ["a.mp4", "b.mp4", "c.mp4"]
    assert sorted(names(index.refreshed())) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


def test_changed_bytes_are_found_by_checksums(mine: Path, model: Path, tmp_path: Path) -> None:
    index = build(tmp_path / "index", mine, model)
    assert damage(index) == []
    path = tmp_path / "index" / index.version.segments[0].name
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert str(path) in damage(index)[0]


def test_folders_that_are_no_index_are_refused(mine: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no index"):
        Index.open(str(tmp_path))
    build(tmp_path / "index", mine, model)
    path = tmp_path / "index/index.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(ValueError, match="format version 99, this program reads 1"):
        Index.open(str(tmp_path / "index"))
    path.write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        Index.open(str(tmp_path / "index"))


def test_an_index_moves_with_its_model(mine: Path, model: Path, tmp_path: Path) -> None:
    before = build(tmp_path / "index", mine, model)
    expected = names(before)
    shutil.move(tmp_path / "index", tmp_path / "other")
    assert names(Index.open(str(tmp_path / "other"))) == expected


def test_an_index_in_a_bucket(mine: Path, model: Path, tmp_path: Path, bucket: str) -> None:
    uri = bucket.replace("/root", "/search")
    writer = Writer.create(Place(uri), model, SETTINGS)
    update(writer, mine)
    index = Index.open(uri, mirror=str(tmp_path / "mirror"))
    assert sorted(names(index)) == sorted(LENGTHS)
    (mine / "a.mp4").unlink()
    update(writer, mine)
    assert sorted(names(index.refreshed())) == ["b.mp4", "c.mp4"]


def test_a_file_that_cannot_be_read_in_part_keeps_the_rest(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tcmgc.video import DecodeError

    mine = make_videos(tmp_path / "videos", {"long.mp4": 70}, rate=1)
    (mine / "broken.mp4").write_bytes(b"no video" * 100)
    whole = Encoder.sample

    def some(encoder: Encoder, path: str, span: tuple[float, float], timeout: float) -> object:
        if span[0] == 15.0:
            raise DecodeError(path, "damaged: a broken picture")
        return whole(encoder, path, span, timeout)

    monkeypatch.setattr(Encoder, "sample", some)
    writer = Writer.create(Place(str(tmp_path / "index")), model, SETTINGS)
    update(writer, mine)
    writer.write_broken()
    index = Index.open(str(tmp_path / "index"))
    assert len(index) == 3
    lines = (tmp_path / "index/broken.tsv").read_text().splitlines()
    assert lines[0] == "file\treason"
    assert "not a video" in lines[1]
    assert lines[2].endswith("long.mp4\t1 of 4 windows: damaged: a broken picture")


def test_unusual_names(model: Path, tmp_path: Path) -> None:
    mine = make_videos(tmp_path / "videos", {"a b.mp4": 50, "🐕\nété.MP4": 60})
    strange = os.fsencode(str(mine)) + b"/\xff\xfe.mp4"
    os.rename(make_videos(mine, {"x.mp4": 70}) / "x.mp4", strange)
    index = build(tmp_path / "index", mine, model)
    found = {m.file.path: m.state for m in index.search("a red ball")[0].matches}
    assert found == {
        str(mine / "a b.mp4"): "",
        str(mine / "🐕\nété.MP4"): "",
        os.fsdecode(strange): "",
    }
    inside = Filters(folder=str(mine))
    assert len(names(index, filters=inside)) == 3


def test_links_are_not_followed(tmp_path: Path) -> None:
    mine, other = tmp_path / "videos", tmp_path / "other"
    for path in (mine / "sub/a.mp4", mine / ".hidden/b.mp4", mine / "notes.txt", other / "c.mp4"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (mine / "loop").symlink_to(mine)
    (mine / "out").symlink_to(other)
    (mine / "link.mp4").symlink_to(other / "c.mp4")
    (tmp_path / "door").symlink_to(mine)
    found = folders.scan(str(tmp_path / "door"))
    assert list(found.stamps) == [str(mine / "sub/a.mp4")]
    assert found.links == 3
    with pytest.raises(ValueError, match="is not there"):
        folders.scan(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="is a file"):
        folders.scan(str(other / "c.mp4"))


def test_settings_are_checked(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hop"):
        Writer.create(Place(str(tmp_path / "index")), model, Settings(window=10, hop=20))


def test_a_few_videos_are_indexed_in_this_process_as_by_the_command(
    mine: Path, model: Path, tmp_path: Path
) -> None:
    (mine / "broken.mp4").write_bytes(b"no video" * 100)
    with pytest.warns(UserWarning, match=r"left out: .*broken\.mp4: not a video"):
        found = in_process.build(str(tmp_path / "one"), [str(mine)], model, SETTINGS)
    expected = build(tmp_path / "two", mine, model)
    for one, other in zip(
        found.search(["a red ball", "snow"]), expected.search(["a red ball", "snow"]), strict=True
    ):
        assert [(m.file, m.moment.score) for m in one.matches] == [
            (m.file, m.moment.score) for m in other.matches
        ]
    with pytest.raises(ValueError, match=r"gone\.mp4 is not there"):
        in_process.build(str(tmp_path / "x"), [str(mine / "gone.mp4")], model)
    with pytest.raises(ValueError, match=r"none of 1 videos can be decoded: .*not a video"):
        in_process.build(str(tmp_path / "y"), [str(mine / "broken.mp4")], model)


def test_an_index_of_another_model_is_named(
    mine: Path, model: Path, tmp_path: Path, tower: str
) -> None:
    index = build(tmp_path / "index", mine, model)
    in_process.check_model(index, model)
    other = save_model(tmp_path / "other", tower, seed=1)
    with pytest.raises(ValueError, match="another model"):
        in_process.check_model(index, other)
