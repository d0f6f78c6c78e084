"""What is told of captions of one video that meet in a batch, and which recipes keep them apart."""

import pytest

from pipeline.inputs import prepare
from tcmgc import config, recipes
from tcmgc.datasets import Clip, Split


def told(capsys: pytest.CaptureFixture[str], videos: int, captions: int, **changes: object) -> str:
    clips = tuple(
        Clip(id=str(n), path=f"{n}.mp4", captions=tuple(f"{n} {k}" for k in range(captions)))
        for n in range(videos)
    )
    chosen = {f"{name.replace('__', '.')}": value for name, value in changes.items()}
    prepare.say_same_video(config.replace(recipes.demo(), chosen), Split(clips=clips))
    return capsys.readouterr().out


def test_few_videos_with_many_captions_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, 10, 40, train__batch_size=64, train__separate_captions=True)
    assert said.startswith("false negatives: 100% of a batch's pairs have another caption of the")
    assert "10 videos are too few for batches of 64" in said
    assert "--loss.mask-same-video True leaves these out" in said
    said = told(capsys, 10, 40, train__batch_size=64, loss__mask_same_video=True)
    assert "loss.mask_same_video leaves these out of the loss" in said


def test_what_could_be_kept_apart_is_told_with_the_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = told(capsys, 90, 5, train__batch_size=30, train__separate_captions=False)
    assert "--train.separate-captions True puts captions of one video into different" in said
    assert told(capsys, 90, 5, train__batch_size=30, train__separate_captions=True) == ""
    assert told(capsys, 90, 1, train__batch_size=30, train__separate_captions=False) == ""


def test_published_settings_leave_them_together_and_our_own_do_not() -> None:
    apart = {name for name in recipes.RECIPES if recipes.recipe(name).train.separate_captions}
    assert apart == {"msrvtt_9k_fp32", "table"}
