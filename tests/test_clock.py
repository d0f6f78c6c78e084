"""From stamps to times."""

from fractions import Fraction

import numpy as np
import pytest

from tcmgc.video.clock import BestEffort, continuous, restarts
from tcmgc.video.timeline import Timeline

MS, RATE = Fraction(1, 1000), Fraction(25)


def times(*stamps: int | None) -> list[float]:
    return continuous(stamps, MS, RATE).tolist()


def test_what_ascends_stays_as_it_is() -> None:
    assert times(7, 20, 21, 400) == [0, 13, 14, 393]


def test_single_stamps_that_repeat_or_step_back_are_read_literally() -> None:
    assert times(0, 40, 40, 120, 160) == [0, 40, 40, 120, 160]
    assert times(0, 40, 80, 60, 160) == [0, 40, 60, 60, 160]
    assert times(100, 140, 90, 220) == [0, 0, 0, 120]
    # One far ahead is passed over when the next comes.
    assert times(0, 40, 80, 10**9, 160, 200) == [0, 40, 80, 160, 160, 200]


def test_a_stamp_far_back_takes_the_time_of_the_one_before() -> None:
    stamps = list(range(0, 10_000, 40))
    stamps[150] = 0
    right = list(range(0, 10_000, 40))
    right[150] = right[149]
    assert times(*stamps) == right


@pytest.mark.parametrize("parts", [(50, 50), (20, 60), (60, 20), (30, 10, 30)])
def test_a_clock_that_starts_again_goes_on(parts: tuple[int, ...]) -> None:
    stamps = [40 * n + 500 for part in parts for n in range(part)]
    assert times(*stamps) == [40 * n for n in range(sum(parts))]
    begins = np.cumsum(parts)[:-1].tolist()
    assert restarts(stamps, MS) == begins
    # Stamps beside the break are guesses of the demuxer.
    stamps[begins[0] - 1] += 80
    assert times(*stamps) == [40 * n for n in range(sum(parts))]


def test_a_clock_of_changing_rate_that_starts_again() -> None:
    gaps = np.random.default_rng(0).integers(10, 300, 40)
    part = np.cumsum(gaps).tolist()
    got = times(*part, *part)
    assert got[:40] == [stamp - part[0] for stamp in part]
    assert got[40] - got[39] == pytest.approx(np.median(gaps[1:]))
    assert np.diff(got)[40:].tolist() == np.diff(part).tolist()


def test_few_stamps_that_are_late_together_are_no_new_clock() -> None:
    stamps = list(range(0, 4000, 40))
    stamps[50:55] = [stamp - 1000 for stamp in stamps[50:55]]
    assert restarts(stamps, MS) == []
    assert times(*stamps)[60:] == list(range(0, 4000, 40))[60:]


def test_pictures_without_a_stamp_lie_between() -> None:
    assert times(0, None, None, 120, 160) == [0, 40, 80, 120, 160]
    assert times(None, 100, 140, None) == [0, 40, 80, 120]
    assert continuous([5, None, 45], MS, None).tolist() == [0, 20, 40]


def test_thousands_of_broken_stamps_take_no_time() -> None:
    stamps = list(range(20_000, 0, -1))
    assert (np.diff(continuous(stamps, MS, RATE)) >= 0).all()


def test_best_effort_takes_decoding_times_once_presentation_times_fail_more_often() -> None:
    guess = BestEffort()
    pictures = [(0, 0), (40, 40), (30, 80), (120, 120), (None, 160), (200, None)]
    assert [guess(*one) for one in pictures] == [0, 40, 80, 120, 160, 200]
    guess = BestEffort()
    assert [guess(p, d) for p, d in ((0, 0), (40, 0), (40, 0), (80, 0))] == [0, 40, 40, 80]


def test_durations() -> None:
    def made(*stamps: int | None, last: int = 0, rate: Fraction | None = RATE) -> Timeline:
        return Timeline.from_stamps(stamps, last, MS, rate)

    assert made(0, 40, 80).duration == pytest.approx(0.12)
    assert made(0, 40, 80, last=5).duration == pytest.approx(0.085)
    assert made(7).duration == pytest.approx(0.04)
    assert made(7, rate=None).duration == pytest.approx(0.001)
    assert made(None, None).times.tolist() == [0, 0.04]
    with pytest.raises(ValueError, match="neither timestamps nor a frame rate"):
        made(None, rate=None)
