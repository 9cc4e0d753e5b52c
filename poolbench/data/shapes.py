"""The data set ``shapes``: one white rectangle or circle on a black canvas, new samples every epoch.

Source: analyze_pooling (Scheidl 2022), whose objects are OpenCV's filled rectangles and circles. The
parameters of an object are sampled on the CPU and its pixels are drawn on the device, so every device gets the same
samples, and a GPU does not wait for images.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import torch
from torch import Tensor

from poolbench.core import DataLocation, UsageError, derive_seed
from poolbench.data.dataset import Dataset, Split
from poolbench.registry import datasets

CLASSES = ("rectangle", "circle")
SMALLEST, LARGEST = 5, 14  # half sizes and radii, both ends included
SMALLEST_CANVAS = 32  # the largest object covers 29 pixels
TEST_SEED = 2022
VALIDATION_SAMPLES = 1000


def draw_rectangles(centres: Tensor, half_sizes: Tensor, canvas: int) -> Tensor:
    """Draw rectangles at centres (n, 2) as x, y with half sizes (n, 2) as w, h: uint8 (n, 1, canvas, canvas).

    A rectangle covers [x - w, x + w] x [y - h, y + h], ends included, cut at the border.
    """
    return _fill(centres, _rectangle_rows(centres, half_sizes, canvas))


def draw_morphs(centres: Tensor, radii: Tensor, roundness: Tensor, canvas: int) -> Tensor:
    """Draw superellipses at centres (n, 2) as x, y with radii (n, 1), on the CPU: uint8 (n, 1, canvas, canvas).

    Each covers |dx / r|^p + |dy / r|^p <= 1 with 2 / p = ``roundness`` (n, 1), in float64 above 0: close to 0 a square
    without its corners, 1 a circle.
    """
    dx, dy = ((torch.arange(canvas) - centres[:, axis : axis + 1]).abs() / radii for axis in (0, 1))
    power = 2 / roundness
    # Pixels on the curve belong to the object, whatever rounding makes of them.
    inside = (dx.double() ** power)[:, None, :] + (dy.double() ** power)[:, :, None] <= 1 + 1e-9
    return inside.to(torch.uint8).mul_(255).unsqueeze(1)


def sample_shapes(
    n: int, canvas: int, generator: torch.Generator, device: str | torch.device, margin: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw n random objects: images uint8 (n, 1, canvas, canvas) and labels int64 (n,) into ``CLASSES``.

    The class is a fair coin, half sizes and radius are uniform in 5..14, the centre is uniform among the
    pixels at least ``margin`` away from the border. ``generator`` is a CPU generator.
    """
    labels, extents, centres = (part.to(device) for part in _sample_parameters(n, canvas, generator, margin))
    return _draw(labels, extents, centres, canvas), labels


def sample_morphs(
    n: int, canvas: int, generator: torch.Generator, device: str | torch.device, margin: int = 0
) -> Tensor:
    """Draw n random objects between square and circle, superellipses: uint8 (n, 1, canvas, canvas).

    The roundness of :func:`draw_morphs` is uniform from 0 to 1. Radius and centre are sampled as in
    :func:`sample_shapes`.
    """
    roundness = 1 - torch.rand((n, 1), generator=generator, dtype=torch.float64)  # above 0
    radii = torch.randint(SMALLEST, LARGEST + 1, (n, 1), generator=generator)
    centres = torch.randint(margin, canvas - margin, (n, 2), generator=generator)
    return draw_morphs(centres, radii, roundness, canvas).to(device)


def _sample_parameters(n: int, canvas: int, generator: torch.Generator, margin: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return labels (n,), extents (n, 2) and centres (n, 2); a circle's radius is its first extent."""
    labels = torch.randint(len(CLASSES), (n,), generator=generator)
    extents = torch.randint(SMALLEST, LARGEST + 1, (n, 2), generator=generator)
    centres = torch.randint(margin, canvas - margin, (n, 2), generator=generator)
    return labels, extents, centres


def _draw(labels: Tensor, extents: Tensor, centres: Tensor, canvas: int) -> Tensor:
    rectangles = _rectangle_rows(centres, extents, canvas)
    circles = _circle_rows(centres, extents[:, 0], canvas)
    return _fill(centres, torch.where(labels[:, None] == 0, rectangles, circles))


def _fill(centres: Tensor, reach: Tensor) -> Tensor:
    """Colour dx^2 <= reach, with reach (n, canvas) per row: the squared half width, below 0 where empty."""
    dx = torch.arange(reach.shape[1], device=centres.device) - centres[:, :1]
    # 32 bits hold every square and halve the memory of the one large comparison.
    inside = dx.square().to(torch.int32)[:, None, :] <= reach.to(torch.int32)[:, :, None]
    return inside.to(torch.uint8).mul_(255).unsqueeze(1)


def _rectangle_rows(centres: Tensor, half_sizes: Tensor, canvas: int) -> Tensor:
    dy = torch.arange(canvas, device=centres.device) - centres[:, 1:]
    return torch.where(dy.abs() <= half_sizes[:, 1:], half_sizes[:, :1].square(), -1)


def _circle_rows(centres: Tensor, radii: Tensor, canvas: int) -> Tensor:
    # Pixel for pixel cv2.circle(..., thickness=-1) of OpenCV, whose integer midpoint algorithm fills exactly the
    # pixels with dx^2 + dy^2 <= r^2.
    dy = torch.arange(canvas, device=centres.device) - centres[:, 1:]
    return radii[:, None].square() - dy.square()


@dataclass(frozen=True)
class ShapeStream:
    """A training source with ``samples`` new objects in every epoch."""

    canvas: int
    samples: int
    device: str = "cpu"
    margin: int = 0
    validation_samples: int = VALIDATION_SAMPLES

    def __len__(self) -> int:
        return self.samples

    def draw(self, generator: torch.Generator, shuffle: bool) -> Tensor:
        """Return one epoch of new objects as rows (n, 5): label, two extents, centre x and y.

        Samples are independent, so ``shuffle`` changes nothing.
        """
        labels, extents, centres = _sample_parameters(self.samples, self.canvas, generator, self.margin)
        return torch.cat((labels[:, None], extents, centres), dim=1)

    def render(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (b, 1, canvas, canvas) and labels (b,) of rows (b, 5)."""
        labels = rows[:, 0]
        return _draw(labels, rows[:, 1:3], rows[:, 3:], self.canvas), labels

    def held_out(self, fraction: float, seed: int) -> tuple[ShapeStream, Split]:
        """Return the stream itself and ``validation_samples`` independent objects.

        A stream is infinite, so ``fraction`` does not apply.
        """
        generator = torch.Generator().manual_seed(derive_seed(seed, "validation split"))
        return self, Split(*sample_shapes(self.validation_samples, self.canvas, generator, self.device, self.margin))

    def subset(self, count: int, seed: int) -> Tensor:
        """Raise UsageError: a stream stores no images to choose from."""
        raise UsageError(
            f"train_images selects stored images, but shapes are drawn afresh in every epoch: got {count}; "
            "set the data set's option samples instead"
        )


@datasets.register("shapes")
def shapes(
    location: DataLocation,
    device: str,
    canvas: int = 224,
    samples: int = 250_000,
    test_samples: int = 1000,
    margin: int = 0,
) -> Dataset:
    """Rectangle or circle on a black canvas, new samples every epoch (Scheidl 2022).

    ``samples`` is the number of training samples per epoch, ``margin`` the smallest distance of a centre from the
    border in pixels (0: the border may cut objects; 14 or more: all objects are whole).
    """
    if canvas < SMALLEST_CANVAS:
        raise UsageError(f"canvas is at least {SMALLEST_CANVAS} pixels, got {canvas}: choose a larger canvas")
    if not 0 <= 2 * margin < canvas:
        raise UsageError(
            f"margin is at least 0 and below half the canvas of {canvas}, got {margin}: choose another margin"
        )
    if samples < 1 or test_samples < 1:
        raise UsageError(f"samples and test_samples are at least 1, got {samples} and {test_samples}: raise them")
    generator = torch.Generator().manual_seed(derive_seed(TEST_SEED, "shapes test split"))
    test = Split(*sample_shapes(test_samples, canvas, generator, device, margin))
    protocol = {
        "classes": CLASSES,
        "extents": (SMALLEST, LARGEST),
        "canvas": canvas,
        "samples": samples,
        "margin": margin,
        "test": test.digest(),
    }
    return Dataset(
        name="shapes",
        classes=CLASSES,
        train=ShapeStream(canvas, samples, device, margin),
        test=test,
        # (pixel / 255 - mean) / std is the reference's input scale, pixel - 127.5.
        mean=(0.5,),
        std=(1 / 255,),
        source="drawn: filled rectangles and circles as OpenCV draws them",
        digest=hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest(),
    )
