"""Colour shapes: geometry against other routes, balance, contrast, and that nothing depends on chance."""

import math

import pytest
import torch

from poolbench.core import DataLocation, UsageError
from poolbench.data import Dataset, Split, load_dataset
from poolbench.data.colour_shapes import (
    CLASSES,
    LEAST_CONTRAST,
    LUMA,
    SHAPES,
    colour_shapes,
    draw_colour_shapes,
    polygon,
    sample_colours,
)

LOCATION = DataLocation("absent")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit_grid(points: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    axis = (torch.arange(points) + 0.5) / points * 2.4 - 1.2
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    return x, y


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("colour_shapes", LOCATION)


def test_splits_are_balanced_and_of_the_promised_size(dataset: Dataset) -> None:
    assert isinstance(dataset.train, Split)
    assert dataset.in_shape == (3, 32, 32)
    assert dataset.classes == CLASSES
    assert dataset.train.labels.bincount().tolist() == [400] * 10
    assert dataset.test.labels.bincount().tolist() == [100] * 10


def test_no_picture_is_drawn_twice(dataset: Dataset) -> None:
    assert isinstance(dataset.train, Split)
    pictures = torch.cat([dataset.train.images, dataset.test.images]).flatten(1)
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(pictures)


def test_equal_options_give_equal_data_and_test_data_stand_alone() -> None:
    first, again = (colour_shapes(LOCATION, "cpu", train_samples=50, test_samples=20) for _ in range(2))
    more = colour_shapes(LOCATION, "cpu", train_samples=60, test_samples=20)
    assert first.digest == again.digest
    assert first.digest != more.digest
    assert torch.equal(first.test.images, more.test.images)


def test_polygon_agrees_with_inequalities() -> None:
    x, y = unit_grid()
    triangle = polygon((-1.0, -1.0), (1.0, -1.0), (0.0, 1.0))(x, y)
    assert torch.equal(triangle, (y > -1) & (y < 1 - 2 * x) & (y < 1 + 2 * x))
    # A concave one: an L is a square without its upper right quarter.
    ell = polygon((-1.0, -1.0), (1.0, -1.0), (1.0, 0.0), (0.0, 0.0), (0.0, 1.0), (-1.0, 1.0))(x, y)
    assert torch.equal(ell, (x.abs() < 1) & (y.abs() < 1) & ~((x > 0) & (y > 0)))


@pytest.mark.parametrize("name", CLASSES)
def test_shapes_keep_within_the_unit_disc_and_reach_its_rim(name: str) -> None:
    x, y = unit_grid()
    reach = (x**2 + y**2)[SHAPES[name](x, y)].max().sqrt()
    assert 0.85 < reach <= 1.01


def test_no_rotation_turns_one_class_into_another() -> None:
    x, y = unit_grid(120)
    upright = torch.stack([contains(x, y) for contains in SHAPES.values()])
    for angle in range(0, 360, 5):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        turned = torch.stack([contains(c * x + s * y, c * y - s * x) for contains in SHAPES.values()])
        shared = (upright[:, None] & turned[None]).sum((2, 3)) / (upright[:, None] | turned[None]).sum((2, 3))
        assert shared.fill_diagonal_(0).max() < 0.85, angle


def test_objects_contrast_with_their_background() -> None:
    objects, backgrounds = sample_colours(2000, generator())
    for colours in (objects, backgrounds):
        assert colours.shape == (2000, 2, 3)
        assert colours.min() >= -1e-6
        assert colours.max() <= 1 + 1e-6
    object_luma, background_luma = (colours @ torch.tensor(LUMA) for colours in (objects, backgrounds))
    gaps = object_luma[:, :, None] - background_luma[:, None, :]
    assert gaps.abs().min() >= LEAST_CONTRAST - 1e-5
    brighter = (gaps > 0).flatten(1)
    assert torch.equal(brighter.all(1), brighter.any(1))
    assert 0.45 < brighter.all(1).double().mean() < 0.55
    hue = objects[:, 0] - object_luma[:, :1]
    assert (hue.abs().amax(1) > 0.1).double().mean() > 0.5  # colours, not grays


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_objects_are_drawn_where_they_survive_a_rotation(label: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """White objects on black without noise: whole in the inscribed circle, off-centre, of several sizes."""
    module = "poolbench.data.colour_shapes"
    white, black = torch.ones(60, 2, 3), torch.zeros(60, 2, 3)
    monkeypatch.setattr(f"{module}.sample_colours", lambda n, generator: (white, black))
    monkeypatch.setattr(f"{module}.NOISE", 0.0)
    images = draw_colour_shapes(torch.full((60,), label), 32, generator())[:, 0]
    axis = torch.arange(32) - 15.5
    distance = (axis[None, :] ** 2 + axis[:, None] ** 2).sqrt()
    assert (images * (distance > 16.8)).max() == 0  # 16 and half a pixel's diagonal
    assert (images == 255).flatten(1).any(1).all()
    assert ((images > 0) & (images < 255)).flatten(1).any(1).all()  # soft edges
    areas = images.double().sum((1, 2))
    assert areas.max() > 2.5 * areas.min()
    x = (images * axis[None, None, :]).double().sum((1, 2)) / areas
    assert x.std() > 1


def test_objects_stand_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "poolbench.data.colour_shapes"
    white, black = torch.ones(60, 2, 3), torch.zeros(60, 2, 3)
    monkeypatch.setattr(f"{module}.sample_colours", lambda n, generator: (white, black))
    monkeypatch.setattr(f"{module}.NOISE", 0.0)
    images = draw_colour_shapes(torch.full((60,), CLASSES.index("triangle")), 32, generator())[:, 0]
    rows = images.double().sum(2)
    row = torch.arange(32)
    middle = (rows * row).sum(1) / rows.sum(1)
    occupied = (rows > 0).double() * row
    box_middle = (occupied.amax(1) + 31 - ((rows > 0).double() * (31 - row)).amax(1)) / 2
    assert (middle > box_middle).all()  # the heavy side of a triangle that stands on its base is below


@pytest.mark.parametrize(("option", "value"), [("size", 15), ("train_samples", 9), ("test_samples", 0)])
def test_wrong_options_are_usage_errors(option: str, value: int) -> None:
    with pytest.raises(UsageError, match=rf"{option}.* {value}\b"):
        load_dataset("colour_shapes", LOCATION, "cpu", **{option: value})
