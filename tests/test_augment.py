import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resized_crop

from tcmgc.training.augment import crop_boxes, crop_resize, random_resized_crop_flip


def videos(count: int, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count * 2, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    return (smooth * 255).to(torch.uint8).view(count, 2, 3, size, size)


def test_agrees_with_a_crop_of_one_video_after_the_other() -> None:
    pixels = videos(3).float()
    corners = [(4, 2, 16, 24), (0, 0, 32, 32), (10, 6, 20, 20)]  # left, top, width, height
    flips = torch.tensor([False, True, True])
    fast = crop_resize(pixels, torch.tensor(corners) / 32, flips)
    for video, out, (left, top, width, height), flip in zip(
        pixels, fast, corners, flips, strict=True
    ):
        slow = resized_crop(
            video, top, left, height, width, [32, 32], InterpolationMode.BICUBIC, antialias=False
        )
        slow = slow.flip(-1) if flip else slow
        # At the rim, ours sees what lies outside the crop and theirs repeats its edge.
        torch.testing.assert_close(out[..., 4:-4, 4:-4], slow[..., 4:-4, 4:-4], atol=1e-2, rtol=0)


def test_the_whole_square_is_left_alone() -> None:
    pixels = videos(2)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    same = crop_resize(pixels, boxes, torch.tensor([False, False]))
    mirrored = crop_resize(pixels, boxes, torch.tensor([True, True]))
    torch.testing.assert_close(same, pixels)
    torch.testing.assert_close(mirrored, pixels.flip(-1))


def test_one_crop_a_video_the_same_for_its_frames() -> None:
    pixels = videos(6)
    pixels[:, 1] = pixels[:, 0]
    out = random_resized_crop_flip(pixels, torch.Generator().manual_seed(1))
    assert out.dtype == torch.uint8
    assert out.shape == pixels.shape
    torch.testing.assert_close(out[:, 0], out[:, 1])
    same = pixels[:1].expand(6, -1, -1, -1, -1).contiguous()
    different = random_resized_crop_flip(same, torch.Generator().manual_seed(1))
    assert len({video.numpy().tobytes() for video in different}) == 6


def test_the_generator_decides() -> None:
    pixels = videos(4).float()
    first = random_resized_crop_flip(pixels, torch.Generator().manual_seed(3))
    again = random_resized_crop_flip(pixels, torch.Generator().manual_seed(3))
    other = random_resized_crop_flip(pixels, torch.Generator().manual_seed(4))
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    assert (first != other).any()


def test_padding_stays_zero() -> None:
    pixels = videos(4)
    pixels[:, 1] = 0
    out = random_resized_crop_flip(pixels, torch.Generator().manual_seed(0))
    assert not out[:, 1].any()


def test_boxes_keep_to_their_bounds() -> None:
    left, top, width, height = crop_boxes(
        5000, torch.Generator().manual_seed(0), (0.5, 1.0), (3 / 4, 4 / 3)
    ).unbind(1)
    area = width * height
    assert min(left.min(), top.min()) >= 0
    assert max((left + width).max(), (top + height).max()) <= 1 + 1e-6
    assert area.min() >= 0.5 - 1e-6
    assert area.max() <= 1 + 1e-6
    assert area.mean() == pytest.approx(0.75, abs=0.01)
    assert (width / height).min() >= 3 / 4 - 1e-6
    assert (width / height).max() <= 4 / 3 + 1e-6
    assert (width / height).log().mean() == pytest.approx(0, abs=0.01)


def test_a_share_is_the_same_part_of_the_whole_batch():
    pixels = torch.randint(0, 256, (5, 2, 3, 16, 16), dtype=torch.uint8)
    whole = random_resized_crop_flip(pixels, torch.Generator().manual_seed(3))
    part = slice(2, 4)
    mine = random_resized_crop_flip(pixels[part], torch.Generator().manual_seed(3), share=(5, part))
    assert torch.equal(mine, whole[part])
