"""The objects of a live page: drawn shapes, and test images of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, hypot

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.data import Dataset, to_pixels
from poolbench.data.shapes import draw_morphs, draw_rectangles
from poolbench.engine.evaluation import split_logits
from poolbench.inspect.live_scene import LiveObject
from poolbench.measures.classification import predictions, probabilities
from poolbench.recording import outputs

RADIUS = 7  # of the drawn objects between square and circle, in pixels
ROUNDNESS = (0.15, 0.3, 0.45, 0.6, 0.75, 1.0)  # the last is a circle
RECTANGLES = ((6, 6), (9, 5))  # half sizes (w, h); the first is the object of the article's map
Size = tuple[int, int, int]
SHIFTS = 4  # px in each direction, the total stride of the drawn objects' network
HARD = 6  # test images that are shown because a network is unsure about them


def patch(name: str, label: int, image: Tensor) -> LiveObject:
    """Return the object in an image, uint8 (c, h, w): its non-black pixels in a square that rotation does not leave."""
    ink = image.amax(0) > 0
    if not ink.any():
        ink = torch.ones_like(ink)
    rows, columns = (ink.any(axis).nonzero().flatten() for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
    side = ceil(hypot(height, width))
    above, before = (side - height) // 2, (side - width) // 2
    found = image[:, top : top + height, left : left + width]
    square = F.pad(found, (before, side - width - before, above, side - height - above))
    shape = (square.shape[0], side, side)
    return LiveObject(name, label, shape, square.contiguous().numpy().tobytes(), (top - above, left - before))


def drawn_objects(canvas: int) -> list[LiveObject]:
    """Return rectangles, objects between square and circle, and a circle, all in the middle of a canvas."""
    centre = torch.tensor([[canvas // 2, canvas // 2]])
    found = []
    for width, height in RECTANGLES:
        image = draw_rectangles(centre, torch.tensor([[width, height]]), canvas)[0]
        found.append(patch(f"rectangle, {2 * width + 1} x {2 * height + 1} px", 0, image))
    for share in ROUNDNESS:
        roundness = torch.tensor([[share]], dtype=torch.float64)
        image = draw_morphs(centre, torch.tensor([[RADIUS]]), roundness, canvas)[0]
        name = "circle" if share == 1 else f"{share:.0%} of the way from a square to a circle"
        found.append(patch(f"{name}, {2 * RADIUS + 1} px", int(share > 0.5), image))
    return found


def image_objects(dataset: Dataset, network: nn.Module) -> list[LiveObject]:
    """Return the first test image of each class, and the ``HARD`` ones about which the network is least sure."""
    test = dataset.test
    firsts = [int((test.labels == label).nonzero()[0, 0]) for label in test.labels.unique()]
    top = probabilities(split_logits(network, test)).topk(2, dim=1).values
    unsure = (top[:, 0] - top[:, 1]).argsort(stable=True).tolist()
    hard = [index for index in unsure if index not in firsts][:HARD]
    objects = []
    for index in (*firsts, *hard):
        label = int(test.labels[index])
        name = f"{dataset.classes[label]}, test image {index}{', unsure' * (index in hard)}"
        objects.append(patch(name, label, test.images[index].cpu()))
    return objects


def most_changes_first(objects: Sequence[LiveObject], networks: Sequence[nn.Module], canvas: Size) -> list[LiveObject]:
    """Return the objects with one moved to the front: that whose answers differ most over ``SHIFTS`` x ``SHIFTS`` px.

    The page opens with it, since most objects show nothing: their answers never change.
    """
    changes = [sum(_changes(one, network, canvas) for network in networks) for one in objects]
    first = changes.index(max(changes))
    return [objects[first], *objects[:first], *objects[first + 1 :]]


def _changes(one: LiveObject, network: nn.Module, canvas: Size) -> int:
    """Return at how many of the shifts the answer is not the commonest."""
    side = one.shape[1]
    pixels = torch.frombuffer(bytearray(one.pixels), dtype=torch.uint8).view(one.shape)
    # A border of a patch on all sides: the patch may begin or end outside the canvas.
    around = torch.zeros((SHIFTS, SHIFTS, canvas[0], canvas[1] + 2 * side, canvas[2] + 2 * side), dtype=torch.uint8)
    for dy in range(SHIFTS):
        for dx in range(SHIFTS):
            top, left = one.start[0] + side + dy, one.start[1] + side + dx
            around[dy, dx, :, top : top + side, left : left + side] = pixels
    images = around.flatten(0, 1)[..., side:-side, side:-side]
    answers = predictions(outputs(network, [to_pixels(images)]))
    return len(answers) - int(answers.bincount().max())
