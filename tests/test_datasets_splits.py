import pytest

from tcmgc.datasets import Clip, Split, carve_validation, describe, is_whole, shuffled


def split(count: int, missing: int = 0, **expected: int) -> Split:
    clips = tuple(Clip(f"v{n}", f"/{n}.mp4", ("one", "two")) for n in range(count))
    return Split(clips, tuple(f"m{n}" for n in range(missing)), **expected)


def ids(one: Split) -> set[str]:
    return {clip.id for clip in one.clips}


def test_carving_depends_on_ids_and_seed_alone() -> None:
    train = split(40, expected_videos=40, expected_captions=80)
    corpus = carve_validation({"train": train, "test": split(3)}, 10, seed=0)
    assert list(corpus) == ["train", "val", "test"]
    assert ids(corpus["train"]) | ids(corpus["val"]) == ids(train)
    assert (len(corpus["train"]), len(corpus["val"])) == (30, 10)
    assert is_whole(corpus["train"])
    assert is_whole(corpus["val"])
    turned = Split(train.clips[::-1])
    assert ids(carve_validation({"train": turned}, 10, seed=0)["val"]) == ids(corpus["val"])
    assert ids(carve_validation({"train": turned}, 10, seed=1)["val"]) != ids(corpus["val"])


def test_carving_chooses_among_missing_videos_too() -> None:
    whole = split(40)
    chosen = ids(carve_validation({"train": whole}, 10, seed=0)["val"])
    lost = Split(whole.clips[:20], tuple(clip.id for clip in whole.clips[20:]))
    corpus = carve_validation({"train": lost}, 10, seed=0)
    assert ids(corpus["val"]) | set(corpus["val"].missing) == chosen
    assert len(corpus["train"].missing) + len(corpus["val"].missing) == 20


def test_carving_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"its own validation split \(2 videos\)"):
        carve_validation({"train": split(4), "val": split(2)}, 1, 0)
    for videos in (0, 4):
        with pytest.raises(ValueError, match=rf"there are 4; got {videos}"):
            carve_validation({"train": split(4)}, videos, 0)


def test_description() -> None:
    corpus = {
        "train": split(3),
        "val": split(2, expected_videos=2, expected_captions=4),
        "test": split(824, 180, expected_videos=1004, expected_captions=1004),
        "other": split(2, expected_videos=3),
    }
    assert describe(corpus).splitlines() == [
        "train: 3 videos, 6 captions",
        "val: 2 of 2 videos, 4 of 4 captions, as published",
        "test: 824 of 1004 videos, 1648 of 1004 captions; 180 missing: m0, m1, m2, m3, m4, …",
        "other: 2 of 3 videos, 4 captions, NOT the published counts",
    ]
    assert [is_whole(one) for one in corpus.values()] == [True, True, False, False]


def test_shuffled_captions_are_nobodys_own() -> None:
    clips = tuple(Clip(f"v{n}", f"/{n}.mp4", (f"caption {n}",)) for n in range(9))
    mixed = shuffled(Split(clips), seed=1)
    assert [clip.id for clip in mixed.clips] == [clip.id for clip in clips]
    assert sorted(c.captions for c in mixed.clips) == sorted(c.captions for c in clips)
    pairs = zip(mixed.clips, clips, strict=True)
    assert not any(one.captions == other.captions for one, other in pairs)
    assert shuffled(Split(clips), seed=1) == mixed
    with pytest.raises(ValueError, match="cannot be shuffled among 1 videos"):
        shuffled(Split(clips[:1]), seed=1)
