"""The objects of a live page: each is where it was found, and rotation does not cut it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poolbench import geometry
from poolbench.core import DataLocation
from poolbench.data import load_dataset
from poolbench.data.shapes import draw_morphs, draw_rectangles
from poolbench.inspect.live_objects import HARD, drawn_objects, image_objects, most_changes_first, patch
from poolbench.inspect.live_scene import LiveObject


def pixels(one: LiveObject) -> Tensor:
    return torch.from_numpy(np.frombuffer(one.pixels, np.uint8).copy()).view(one.shape)


def pasted(one: LiveObject, canvas: tuple[int, int, int]) -> Tensor:
    """The canvas with the object where it was found."""
    side = one.shape[1]
    around = torch.zeros(canvas[0], canvas[1] + 2 * side, canvas[2] + 2 * side, dtype=torch.uint8)
    top, left = one.start[0] + side, one.start[1] + side
    around[:, top : top + side, left : left + side] = pixels(one)
    return around[:, side:-side, side:-side]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("box", [(0, 0, 20, 20), (3, 5, 9, 6), (19, 2, 20, 18), (7, 7, 8, 8)])
def test_a_patch_at_its_start_is_the_image(channels: int, box: tuple[int, int, int, int]) -> None:
    top, left, bottom, right = box
    image = torch.zeros(channels, 20, 20, dtype=torch.uint8)
    image[:, top:bottom, left:right] = torch.randint(1, 256, (channels, bottom - top, right - left), dtype=torch.uint8)
    one = patch("it", 0, image)
    assert torch.equal(pasted(one, (channels, 20, 20)), image)


def test_a_black_image_is_a_patch_too() -> None:
    assert patch("nothing", 0, torch.zeros(1, 8, 8, dtype=torch.uint8)).shape == (1, 12, 12)


@pytest.mark.parametrize("degrees", [30.0, 45.0, 90.0, 135.0])
def test_rotation_does_not_leave_the_patch(degrees: float) -> None:
    for one in drawn_objects(48):
        upright = pixels(one)[None] / 255
        turned = geometry.rotate(upright, torch.tensor([degrees]))
        assert float(turned.sum()) == pytest.approx(float(upright.sum()), rel=0.02)


def test_the_last_morph_is_a_circle_and_the_first_close_to_a_square() -> None:
    centre, radius = torch.tensor([[10, 10]]), torch.tensor([[7]])
    circle = draw_morphs(centre, radius, torch.ones(1, 1, dtype=torch.float64), 21)[0, 0] > 0
    y, x = torch.meshgrid(torch.arange(-10, 11), torch.arange(-10, 11), indexing="ij")
    assert torch.equal(circle, x**2 + y**2 <= 49)
    square = draw_rectangles(centre, torch.tensor([[7, 7]]), 21)[0, 0] > 0
    almost = draw_morphs(centre, radius, torch.full((1, 1), 1e-3, dtype=torch.float64), 21)[0, 0] > 0
    # Only the pixels at full reach of both axes are missing: the corners.
    assert (square & ~almost).sum() == 4
    assert drawn_objects(48)[-1].name.startswith("circle")


class Corner(nn.Module):
    """Answers by the parity of the column of the first white pixel where ``fickle``, else always the same."""

    def __init__(self, fickle: bool) -> None:
        super().__init__()
        self.fickle = fickle

    def forward(self, x: Tensor) -> Tensor:
        columns = x.amax(dim=(1, 2)).argmax(1)
        return ((columns % 2).float() * self.fickle - 0.5)[:, None]


def test_the_object_with_the_most_changes_comes_first() -> None:
    objects = drawn_objects(48)
    assert most_changes_first(objects, [Corner(False)], (1, 48, 48)) == objects

    class Wide(Corner):
        """Fickle about wide objects only."""

        def forward(self, x: Tensor) -> Tensor:
            width = (x.amax(dim=(1, 2)) > 0).sum(1)
            return torch.where(width[:, None] == 19, super().forward(x), -0.5)

    first, *others = most_changes_first(objects, [Corner(False), Wide(True)], (1, 48, 48))
    assert first.name == "rectangle, 19 x 11 px"
    assert others == [one for one in objects if one is not first]


def test_images_are_the_first_of_each_class_and_the_unsure_ones() -> None:
    data = load_dataset("mnist_sample", DataLocation(""))

    class Scaled(nn.Module):
        """Sure of an image as far as it is bright."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack((x.mean(dim=(1, 2, 3)), torch.zeros(len(x))), 1) * 10

    objects = image_objects(data, Scaled())
    labels = data.test.labels.tolist()
    assert [one.label for one in objects[:10]] == list(range(10))
    firsts = [labels.index(label) for label in range(10)]
    assert [one.name for one in objects[:10]] == [f"{labels[i]}, test image {i}" for i in firsts]
    brightness = (data.test.images / 255).mean(dim=(1, 2, 3))
    dark = [int(i) for i in brightness.argsort(stable=True) if int(i) not in firsts][:HARD]
    assert [one.name for one in objects[10:]] == [f"{labels[i]}, test image {i}, unsure" for i in dark]
    for one, index in zip(objects[10:], dark, strict=True):
        assert torch.equal(pasted(one, data.in_shape), data.test.images[index])
