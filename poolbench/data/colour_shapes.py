"""The data set ``colour_shapes``: ten drawn shapes in colour, a stand-in for small natural images.

Shapes are upright up to a small tilt and lie inside the inscribed circle of the image. Orientation is therefore
informative in the upright test set, while a rotation of the image neither cuts an object nor turns one class into
another. Everything is drawn on the CPU from a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from poolbench.core import DataLocation, UsageError, derive_seed
from poolbench.data.dataset import Dataset, Split, images_dataset
from poolbench.registry import datasets

SEED = 20
SMALLEST_SIZE = 16
SUPERSAMPLING = 3  # points per pixel and axis
MASK_POINTS = 512  # per axis, of the masks in which points are looked up
MASK_REACH = 1.05  # half the side of a mask; shapes keep within 1
RADII = (0.16, 0.4)  # of the circle around an object, as a share of the picture
MAX_TILT = math.radians(10)
LEAST_CONTRAST = 0.15  # in luma, between any object pixel and any background pixel, before NOISE
NOISE = 0.12  # standard deviation of the sensor noise
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
CHUNK = 100  # images drawn at once; small enough for the cache of a CPU

Shape = Callable[[Tensor, Tensor], Tensor]
"""Maps points x, y of the unit disc (y points up) to booleans of the same shape: inside the object or not."""


def polygon(*corners: tuple[float, float]) -> Shape:
    """Return the inside of a polygon, by the even-odd rule: a ray to the right crosses an odd number of edges."""

    def contains(x: Tensor, y: Tensor) -> Tensor:
        inside = torch.zeros_like(x, dtype=torch.bool)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if y0 == y1:
                continue  # no ray to the right crosses a level edge
            crossing = x0 + (x1 - x0) / (y1 - y0) * (y - y0)
            inside ^= ((y0 > y) != (y1 > y)) & (x < crossing)
        return inside

    return contains


def _round(turn: float, radius: float = 1.0) -> tuple[float, float]:
    """Return the point a share ``turn`` of a full turn clockwise from the top."""
    return radius * math.sin(math.tau * turn), radius * math.cos(math.tau * turn)


def _heart(corners: int = 32) -> Shape:
    turns = [math.tau * i / corners for i in range(corners)]
    return polygon(
        *(
            (
                16 * math.sin(t) ** 3 / 18.1,
                (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) + 2.5) / 18.1,
            )
            for t in turns
        )
    )


SHAPES: dict[str, Shape] = {
    "disc": lambda x, y: x**2 + y**2 <= 0.9**2,
    "ring": lambda x, y: (x**2 + y**2 <= 0.95**2) & (x**2 + y**2 >= 0.5**2),
    "half_disc": lambda x, y: (x**2 + (y + 0.4) ** 2 <= 0.91**2) & (y >= -0.4),
    "crescent": lambda x, y: (x**2 + y**2 <= 0.95**2) & ((x - 0.4) ** 2 + y**2 >= 0.75**2),
    "square": polygon((-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)),
    "triangle": polygon(*(_round(i / 3) for i in range(3))),
    "star": polygon(*(_round(i / 10, 0.42 if i % 2 else 1.0) for i in range(10))),
    "cross": polygon(
        (-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3),
        (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3),
    ),
    "arrow": polygon(
        (0.0, 1.0), (0.75, 0.15), (0.28, 0.15), (0.28, -0.95), (-0.28, -0.95), (-0.28, 0.15), (-0.75, 0.15),
    ),
    "heart": _heart(),
}  # fmt: skip
CLASSES = tuple(SHAPES)


def draw_colour_shapes(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw one random picture for each label (n,) into ``CLASSES``: uint8 (n, 3, size, size), on the CPU.

    Size, place, tilt, colours and textures come from ``generator``.
    """
    n = len(labels)
    coverage = _draw_coverage(labels, size, generator)
    colours = sample_colours(n, generator)
    layers = [
        pair[:, 0, :, None, None].lerp(pair[:, 1, :, None, None], _draw_textures(n, size, generator)[:, None])
        for pair in colours
    ]
    pictures = layers[1].lerp(layers[0], coverage[:, None])
    pictures += NOISE * torch.randn(pictures.shape, generator=generator)
    return pictures.clamp(0, 1).mul(255).round().to(torch.uint8)


def sample_colours(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw two colours (n, 2, 3) each for objects and backgrounds, in [0, 1].

    All object colours of a picture differ from all its background colours by ``LEAST_CONTRAST`` in luma;
    which of them is the brighter is a fair coin.
    """
    margin = LEAST_CONTRAST / 2
    middle = _uniform(n, 1, low=0.35, high=0.65, generator=generator)
    dark = (middle - margin) * _uniform(n, 2, low=0.4, high=1.0, generator=generator)
    bright = 1 - (1 - middle - margin) * _uniform(n, 2, low=0.4, high=1.0, generator=generator)
    swap = torch.rand(n, 1, generator=generator) < 0.5
    return (
        _colour(torch.where(swap, dark, bright), generator),
        _colour(torch.where(swap, bright, dark), generator),
    )


def _colour(luma: Tensor, generator: torch.Generator) -> Tensor:
    """Return random colours (..., 3) of the given luma (...)."""
    chroma = torch.rand(*luma.shape, 3, generator=generator)
    chroma = chroma - chroma @ torch.tensor(LUMA).unsqueeze(1)
    luma = luma.unsqueeze(-1)
    # Keep the hue, and reduce the saturation as far as [0, 1] requires at this luma.
    room = torch.where(chroma > 0, 1 - luma, luma) / chroma.abs().clamp(min=1e-6)
    return luma + chroma * room.amin(-1, keepdim=True).clamp(max=1)


def _draw_coverage(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return the share of each pixel (n, size, size) that an object of each class covers."""
    n = len(labels)
    radius = _uniform(n, low=RADII[0], high=RADII[1], generator=generator)
    tilt = _uniform(n, low=-MAX_TILT, high=MAX_TILT, generator=generator)
    # Uniform over the disc in which the object keeps within the picture's inscribed circle.
    distance = (0.5 - radius) * torch.rand(n, generator=generator).sqrt()
    direction = _uniform(n, high=math.tau, generator=generator)
    x, y = distance * direction.cos(), distance * direction.sin()

    points = size * SUPERSAMPLING
    axis = (torch.arange(points) + 0.5) / points - 0.5
    masks = _masks()
    coverage = torch.empty(n, size, size)
    for chosen in torch.arange(n).split(CHUNK):
        dx = axis[None, None, :] - x[chosen, None, None]
        dy = -axis[None, :, None] - y[chosen, None, None]
        cosine = (tilt[chosen].cos() / radius[chosen])[:, None, None]
        sine = (tilt[chosen].sin() / radius[chosen])[:, None, None]
        row, column = _mask_index(cosine * dy - sine * dx), _mask_index(cosine * dx + sine * dy)
        inside = masks[labels[chosen, None, None], row, column]
        coverage[chosen] = torch.nn.functional.avg_pool2d(inside.float(), SUPERSAMPLING)
    return coverage


@lru_cache(maxsize=1)
def _masks() -> Tensor:
    """Return all shapes as bool (classes, y, x) over +-MASK_REACH; a lookup is faster than testing each point."""
    axis = ((torch.arange(MASK_POINTS) + 0.5) / MASK_POINTS * 2 - 1) * MASK_REACH
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([contains(x, y) for contains in SHAPES.values()])


def _mask_index(position: Tensor) -> Tensor:
    # Points outside the mask are clamped to its rim, which belongs to no shape.
    return ((position / MASK_REACH + 1) * (MASK_POINTS / 2)).long().clamp_(0, MASK_POINTS - 1)


def _draw_textures(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Return n fields (n, size, size) in [0, 1]: plain, gradient, stripes, checks or noise, equally often."""
    kind = torch.randint(5, (n, 1, 1), generator=generator)
    direction = _uniform(n, 1, 1, high=math.tau, generator=generator)
    wavelength = _uniform(n, 1, 1, low=4, high=10, generator=generator)  # pixels
    phase = _uniform(2, n, 1, 1, high=math.tau, generator=generator)

    axis = torch.arange(size) - (size - 1) / 2
    x, y = axis[None, None, :], axis[None, :, None]
    along = direction.cos() * x + direction.sin() * y
    across = direction.cos() * y - direction.sin() * x
    wave = (math.tau * along / wavelength + phase[0]).sin()
    cross_wave = (math.tau * across / wavelength + phase[1]).sin()
    fields = [
        torch.zeros(n, size, size),
        along / (math.sqrt(2) * size) + 0.5,
        (wave + 1) / 2,
        (wave * cross_wave + 1) / 2,
        torch.rand(n, size, size, generator=generator),
    ]
    return torch.stack(fields).take_along_dim(kind[None], dim=0).squeeze(0)


def _uniform(*shape: int, low: float = 0.0, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


@datasets.register("colour_shapes")
def colour_shapes(
    location: DataLocation,
    device: str,
    train_samples: int = 4000,
    test_samples: int = 1000,
    size: int = 32,
) -> Dataset:
    """Ten drawn shapes on textured backgrounds, RGB 32x32, from a fixed seed."""
    if size < SMALLEST_SIZE:
        raise UsageError(f"size is at least {SMALLEST_SIZE} pixels, got {size}: choose a larger size")
    if min(train_samples, test_samples) < len(CLASSES):
        raise UsageError(
            f"train_samples and test_samples are at least {len(CLASSES)}, one per class, "
            f"got {train_samples} and {test_samples}: raise them"
        )

    def split(purpose: str, n: int) -> Split:
        generator = torch.Generator().manual_seed(derive_seed(SEED, f"colour_shapes {purpose} split"))
        # Balanced, and in random order for trainings without shuffling.
        labels = (torch.arange(n) % len(CLASSES))[torch.randperm(n, generator=generator)]
        return Split(draw_colour_shapes(labels, size, generator), labels).to(device)

    train, test = split("train", train_samples), split("test", test_samples)
    return images_dataset("colour_shapes", CLASSES, train, test, "drawn: ten shapes from a fixed seed")
