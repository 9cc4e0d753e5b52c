"""Shapes against OpenCV's drawings, and the protocol by which they are sampled."""

import numpy as np
import pytest
import torch

from poolbench.core import DataLocation, UsageError
from poolbench.data import Dataset, load_dataset
from poolbench.data.shapes import (
    LARGEST,
    SMALLEST,
    ShapeStream,
    draw_rectangles,
    sample_morphs,
    sample_shapes,
)

CANVAS = 64
LAST = CANVAS - 1
RADII = range(SMALLEST, LARGEST + 1)
# Interior; each border and corner, on it and a few pixels inside.
CENTRES = [(31, 33)] + [(x, y) for x in (0, 3, 32, LAST - 3, LAST) for y in (0, 3, 32, LAST - 3, LAST)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shapes(**options: int) -> Dataset:
    return load_dataset("shapes", DataLocation("absent"), "cpu", **options)


def draw_circles(centres: torch.Tensor, radii: torch.Tensor, canvas: int) -> torch.Tensor:
    """Return the images that a training source makes of circles."""
    rows = torch.cat([torch.ones(len(radii), 1, dtype=torch.int64), radii[:, None], radii[:, None], centres], dim=1)
    return ShapeStream(canvas, samples=1).render(rows)[0]


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4, *RADII, 29])
def test_circles_are_those_of_opencv(radius: int) -> None:
    cv2 = pytest.importorskip("cv2")
    expected = [cv2.circle(np.zeros((CANVAS, CANVAS), np.uint8), c, radius, 255, thickness=-1) for c in CENTRES]
    drawn = draw_circles(torch.tensor(CENTRES), torch.full((len(CENTRES),), radius), CANVAS)
    np.testing.assert_array_equal(drawn.squeeze(1).numpy(), np.stack(expected))


def test_circles_of_several_radii_share_a_batch() -> None:
    cv2 = pytest.importorskip("cv2")
    expected = [cv2.circle(np.zeros((CANVAS, CANVAS), np.uint8), (20, 40), r, 255, thickness=-1) for r in RADII]
    drawn = draw_circles(torch.tensor([[20, 40]]).expand(len(RADII), 2), torch.tensor(RADII), CANVAS)
    np.testing.assert_array_equal(drawn.squeeze(1).numpy(), np.stack(expected))


def test_circle_by_hand() -> None:
    image = draw_circles(torch.tensor([[5, 5]]), torch.tensor([5]), 11)
    # Pixels per row of a disc of radius 5: 2 isqrt(25 - dy^2) + 1.
    assert (image[0, 0] > 0).sum(1).tolist() == [1, 7, 9, 9, 9, 11, 9, 9, 9, 7, 1]


@pytest.mark.parametrize("half_size", [(5, 14), (14, 5), (5, 5), (14, 14), (9, 7)])
def test_rectangles_are_those_of_opencv(half_size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    w, h = half_size
    expected = [
        cv2.rectangle(np.zeros((CANVAS, CANVAS), np.uint8), (x - w, y - h), (x + w, y + h), 255, thickness=-1)
        for x, y in CENTRES
    ]
    drawn = draw_rectangles(torch.tensor(CENTRES), torch.tensor([half_size]).expand(len(CENTRES), 2), CANVAS)
    assert drawn.dtype == torch.uint8
    np.testing.assert_array_equal(drawn.squeeze(1).numpy(), np.stack(expected))


def test_samples_follow_the_protocol() -> None:
    images, labels = sample_shapes(4000, CANVAS, generator(), "cpu", margin=LARGEST)
    assert images.shape == (4000, 1, CANVAS, CANVAS)
    assert images.unique().tolist() == [0, 255]
    assert abs(labels.double().mean() - 0.5) < 0.03
    # Whole objects: the extent of the bounding box is the half size, its middle the centre.
    for axis in (2, 3):
        covered = images.amax(dim=(1, 5 - axis)) > 0
        extents = (covered.sum(1) - 1) // 2
        centres = (covered * torch.arange(CANVAS)).sum(1) // covered.sum(1)
        for label in (0, 1):
            counts = extents[labels == label].bincount()
            assert counts.nonzero().flatten().tolist() == list(RADII)
            assert counts[SMALLEST:].min() > 140  # of about 200
        assert centres.unique().tolist() == list(range(LARGEST, CANVAS - LARGEST))
    widths, heights = ((images.amax(dim=(1, axis)) > 0).sum(1) for axis in (2, 3))
    assert torch.equal(widths[labels == 1], heights[labels == 1])
    assert not torch.equal(widths[labels == 0], heights[labels == 0])


def test_margin_decides_whether_objects_are_cut() -> None:
    def touch_border(margin: int) -> torch.Tensor:
        images, _ = sample_shapes(500, CANVAS, generator(), "cpu", margin)
        return torch.stack([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]]).amax((2, 3)) > 0

    assert not touch_border(LARGEST + 1).any()
    assert touch_border(0).any(1).all()


def test_stream_draws_fresh_samples_that_depend_on_the_seed_only() -> None:
    stream = ShapeStream(32, samples=50)
    draws = generator(1)
    first, second = (stream.draw(draws, shuffle=True) for _ in range(2))
    assert first.shape == (50, 5)
    assert torch.equal(first, stream.draw(generator(1), shuffle=False))
    assert not torch.equal(first, second)


def test_batches_of_a_stream_are_parts_of_its_epoch() -> None:
    stream = ShapeStream(32, samples=50)
    rows = stream.draw(generator(1), shuffle=True)
    images, labels = stream.render(rows)
    parts = [stream.render(part) for part in rows.split(20)]
    assert [len(part) for _, part in parts] == [20, 20, 10]
    assert torch.equal(torch.cat([x for x, _ in parts]), images)
    assert torch.equal(torch.cat([y for _, y in parts]), labels)


def test_stream_draws_what_sample_shapes_draws() -> None:
    stream = ShapeStream(32, samples=30, margin=5)
    images, labels = stream.render(stream.draw(generator(2), shuffle=False))
    expected, expected_labels = sample_shapes(30, 32, generator(2), "cpu", margin=5)
    assert torch.equal(images, expected)
    assert torch.equal(labels, expected_labels)


def test_held_out_split_is_fixed_by_its_seed() -> None:
    stream = ShapeStream(32, samples=50, validation_samples=40)
    train, validation = stream.held_out(0.2, seed=3)
    assert train is stream
    assert len(validation) == 40
    assert validation.digest() == stream.held_out(0.5, seed=3)[1].digest()
    assert validation.digest() != stream.held_out(0.2, seed=4)[1].digest()


def test_dataset() -> None:
    dataset = shapes(canvas=48, samples=100, test_samples=60)
    assert dataset.classes == ("rectangle", "circle")
    assert dataset.in_shape == (1, 48, 48)
    assert (len(dataset.train), len(dataset.test)) == (100, 60)
    # The reference's input scale is pixel - 127.5.
    pixels = torch.tensor([0.0, 100.0, 255.0])
    torch.testing.assert_close((pixels / 255 - dataset.mean[0]) / dataset.std[0], pixels - 127.5)


def test_digest_tells_protocols_apart() -> None:
    options = {"canvas": 48, "samples": 100, "test_samples": 60}
    digest = shapes(**options).digest
    load_dataset.__globals__["_load"].cache_clear()
    assert shapes(**options).digest == digest
    for change in ({"canvas": 49}, {"samples": 101}, {"test_samples": 61}, {"margin": 1}):
        assert shapes(**{**options, **change}).digest != digest


@pytest.mark.parametrize(
    ("option", "value"),
    [("canvas", 31), ("canvas", -1), ("margin", -1), ("margin", 112), ("samples", 0), ("test_samples", 0)],
)
def test_wrong_options_are_usage_errors(option: str, value: int) -> None:
    with pytest.raises(UsageError, match=rf"{option}.* {value}\b"):
        shapes(**{option: value})


def test_a_stream_has_no_images_to_choose_from() -> None:
    with pytest.raises(UsageError, match="drawn afresh in every epoch: got 100; set the data set's option samples"):
        ShapeStream(64, 250).subset(100, seed=0)


def test_morphs_lie_between_the_circle_and_the_square() -> None:
    margin = 30
    images = sample_morphs(200, CANVAS, generator(3), "cpu", margin)[:, 0] > 0
    # The same draws, in the same order.
    stream = generator(3)
    roundness = 1 - torch.rand((200, 1), generator=stream, dtype=torch.float64)
    radii = torch.randint(SMALLEST, LARGEST + 1, (200, 1), generator=stream)
    centres = torch.randint(margin, CANVAS - margin, (200, 2), generator=stream)
    circles = draw_circles(centres, radii[:, 0], CANVAS)[:, 0] > 0
    squares = draw_rectangles(centres, radii.expand(-1, 2), CANVAS)[:, 0] > 0
    assert (circles <= images).all()
    assert (images <= squares).all()
    # Rounder objects are smaller.
    sizes, least, most = (x.flatten(1).sum(1).double() for x in (images, circles, squares))
    share = (sizes - least) / (most - least)
    assert torch.corrcoef(torch.stack([share, roundness[:, 0]]))[0, 1] < -0.8
    for index in range(5):
        (x0, y0), radius, power = centres[index].tolist(), int(radii[index]), 2 / float(roundness[index])
        for y, x in ((y0 + dy, x0 + dx) for dy in range(-15, 16) for dx in range(-15, 16)):
            inside = (abs(x - x0) / radius) ** power + (abs(y - y0) / radius) ** power <= 1 + 1e-9
            assert bool(images[index, y, x]) == inside
