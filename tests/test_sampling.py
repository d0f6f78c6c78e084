import numpy as np
import pytest

from tcmgc.video.sampling import check_sampling, on_screen, sample_instants


def test_one_frame_a_second_below_the_duration() -> None:
    assert sample_instants(3.0).tolist() == [0, 1, 2]
    assert sample_instants(3.01).tolist() == [0, 1, 2, 3]
    assert sample_instants(0.04).tolist() == [0]
    assert sample_instants(1.0, fps=3).tolist() == [0, 1 / 3, 2 / 3]


def test_thinned_as_the_field_does() -> None:
    assert sample_instants(20.0, max_frames=12).tolist() == [
        0, 1, 3, 5, 6, 8, 10, 12, 13, 15, 17, 19,
    ]  # fmt: skip
    assert sample_instants(5.0, max_frames=1).tolist() == [0]
    assert sample_instants(12.0, max_frames=12).tolist() == list(range(12))


def test_a_window_keeps_the_grid() -> None:
    assert sample_instants(10.0, start=2.5, end=5.0).tolist() == [3, 4]
    assert sample_instants(10.0, start=2.0, end=5.0).tolist() == [2, 3, 4]
    assert sample_instants(4.0, start=2.0, end=50.0).tolist() == [2, 3]
    assert sample_instants(10.0, start=2.2, end=2.8).tolist() == [2.2]


@pytest.mark.parametrize("fps", [0.3, 1.0, 3.0, 7.3, 10.0, 29.97])
def test_the_grid_agrees_with_a_plain_search(fps: float) -> None:
    for start, end in ((0.0, 7.0), (0.1, 0.3), (1 / 3, 2.9), (0.7, 5.1)):
        plain = [k / fps for k in range(300) if start <= k / fps < end]
        found = sample_instants(9.0, max_frames=1000, fps=fps, start=start, end=end)
        assert found.tolist() == (plain or [start])


def test_segments() -> None:
    assert sample_instants(8.0, max_frames=4, sampler="middle").tolist() == [1, 3, 5, 7]
    assert sample_instants(8.0, max_frames=2, start=4, sampler="middle").tolist() == [5, 7]
    drawn = np.array(
        [sample_instants(8.0, max_frames=4, sampler="random", seed=i) for i in range(500)]
    )
    assert ((drawn >= [0, 2, 4, 6]) & (drawn < [2, 4, 6, 8])).all()
    np.testing.assert_allclose(drawn.mean(axis=0), [1, 3, 5, 7], atol=0.1)
    again = sample_instants(8.0, max_frames=4, sampler="random", seed=3)
    np.testing.assert_array_equal(again, drawn[3])


def test_the_last_frame_that_is_not_later() -> None:
    times = np.array([0.0, 0.5, 1.0, 2.5])
    instants = np.array([0.0, 0.49, 0.5, 0.99, 1.0, 2.4, 2.5, 9.0])
    assert on_screen(times, instants).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_refuses_what_names_no_instant() -> None:
    with pytest.raises(ValueError, match=r"begins at 5 s, but the video lasts 5 s"):
        sample_instants(5.0, start=5.0)
    with pytest.raises(ValueError, match="'every'; known are uniform, middle, random"):
        check_sampling(max_frames=1, fps=1.0, start=0.0, end=None, sampler="every")
