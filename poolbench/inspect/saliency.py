"""Saliency maps of single decisions by Captum, and how much of them stays when the image moves."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion
from torch import Tensor, nn

from poolbench.engine.build import initialise
from poolbench.geometry import disc_mask, rotate, shift
from poolbench.inspect.stages import Stage
from poolbench.measures import ranks

STEPS = 16
"""Steps of the path from black to the image (integrated gradients)."""
DEGREES = 10.0
SMALL = 64
"""Side in px up to which occlusion takes finer steps: small networks are fast."""

Method = Literal["integrated_gradients", "grad_cam", "occlusion"]
METHODS: dict[Method, str] = {
    "integrated_gradients": "integrated gradients",
    "grad_cam": "Grad-CAM",
    "occlusion": "occlusion",
}
Move = Literal["shift", "turn"]
MOVES: dict[Move, str] = {"shift": "moved right by 1 px", "turn": "turned by 10°"}


@dataclass(frozen=True)
class Kept:
    """Rank correlations (Spearman) of one saliency map with others; None where a map is constant.

    ``shift`` and ``turn``: with the map of the image moved right by 1 px or turned by 10 degrees, moved back.
    ``ceiling``: with itself turned by 10 degrees and back, which interpolation alone costs. ``random``: with the map of
    the same network with random weights (Adebayo et al. 2018).
    """

    method: Method
    shift: float | None
    turn: float | None
    ceiling: float | None
    random: float | None


def evidence(logits: Tensor, decisions: Tensor) -> Tensor:
    """Return the logit (b,) of each decision (b,) for logits (b, outputs); one logit is that of class 1 of two."""
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * decisions - 1)
    return logits.gather(1, decisions[:, None])[:, 0]


def _scored(network: nn.Module, decision: int) -> Callable[[Tensor], Tensor]:
    def score(images: Tensor) -> Tensor:
        return evidence(network(images), torch.full((len(images),), decision, device=images.device))

    return score


def integrated_gradients(network: nn.Module, image: Tensor, decision: int, batch: int = 8) -> tuple[Tensor, float]:
    """Return the map (h, w) of integrated gradients of an image (c, h, w) from black, summed over channels.

    (Sundararajan et al. 2017.) The number is the gap: by how much the sum of the map differs from the difference of the
    logits of image and black, as a share of the latter; more steps would make it smaller.
    """
    inputs = image[None].clone().requires_grad_()
    score = _scored(network, decision)
    found = IntegratedGradients(score).attribute(inputs, n_steps=STEPS, internal_batch_size=batch)
    with torch.no_grad():
        difference = float(score(image[None]) - score(torch.zeros_like(image)[None]))
    salient = found.detach()[0].sum(0)
    return salient, abs(float(salient.sum()) - difference) / max(abs(difference), 1e-12)


def grad_cam(network: nn.Module, image: Tensor, decision: int, stage: Stage) -> Tensor:
    """Return the map (h, w) of Grad-CAM at a stage (Selvaraju et al. 2017) for an image (c, h, w), not negative.

    The stage's module must run once in a pass. The map is enlarged to the image's size by bilinear interpolation.
    """
    inputs = image[None].clone().requires_grad_()
    layer = network.get_submodule(stage.tap.path)
    found = LayerGradCam(_scored(network, decision), layer).attribute(inputs, relu_attributions=True)
    assert isinstance(found, Tensor)
    height, width = image.shape[1:]
    enlarged: Tensor = LayerAttribution.interpolate(found.detach(), (height, width), "bilinear")
    return enlarged[0, 0]


def occlusion(network: nn.Module, image: Tensor, decision: int, batch: int = 8) -> Tensor:
    """Return the map (h, w) of how much the logit falls when a black square covers each pixel (Zeiler and Fergus 2014).

    The image is (c, h, w). A square has the side of two steps; a pixel gets the mean of the squares that cover it.
    """
    channels, height, width = image.shape
    stride = occlusion_stride(max(height, width))
    side = 2 * stride
    with torch.no_grad():
        found: Tensor = Occlusion(_scored(network, decision)).attribute(
            image[None],
            sliding_window_shapes=(channels, min(side, height), min(side, width)),
            strides=(channels, stride, stride),
            perturbations_per_eval=batch,
        )
    # Every channel has the same value: the window covers all of them.
    return found[0].mean(0)


def occlusion_stride(size: int) -> int:
    """Return the distance in px between two squares for an image of that side."""
    return max(1, size // (14 if size <= SMALL else 7))


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy of a network with all parameters drawn anew (modules without reset_parameters keep theirs)."""
    changed = copy.deepcopy(network)
    initialise(changed, seed)
    return changed.eval()


def moved(images: Tensor, move: Move) -> Tensor:
    """Return images (b, c, h, w) moved right by 1 px (black enters), or turned counter-clockwise (mirrored outside)."""
    if move == "shift":
        return shift(images, torch.tensor([[0, 1]], device=images.device).expand(len(images), 2))
    return rotate(images, torch.full((len(images),), DEGREES), "reflect")


def moved_back(maps: Tensor, move: Move) -> Tensor:
    """Return maps (b, c, h, w) of moved images moved back."""
    if move == "shift":
        return shift(maps, torch.tensor([[0, -1]], device=maps.device).expand(len(maps), 2))
    return rotate(maps, torch.full((len(maps),), -DEGREES), "reflect")


def compared_positions(size: tuple[int, int], move: Move) -> Tensor:
    """Return booleans (h, w): the positions that are still there after a map is moved there and back.

    After a shift all but the last column, after a turn the inscribed disc.
    """
    if move == "turn":
        return disc_mask(size)
    inside = torch.ones(size, dtype=torch.bool)
    inside[:, -1] = False
    return inside


def rank_correlation(first: Tensor, second: Tensor, inside: Tensor | None = None) -> float | None:
    """Return Spearman's rank correlation of two maps (h, w) over the positions ``inside``; None if one is constant."""
    a, b = (
        maps.detach().cpu()[... if inside is None else inside].double().flatten().numpy() for maps in (first, second)
    )
    found = ranks.rank_correlation(a, b)
    return found if math.isfinite(found) else None


def kept(method: Method, maps: dict[str, Tensor], random: Tensor | None) -> Kept:
    """Return how a saliency map relates to the others; ``maps`` are {"original", "shift", "turn"}: (h, w)."""
    original = maps["original"]
    size = (original.shape[0], original.shape[1])
    found = {
        move: rank_correlation(original, moved_back(maps[move][None, None], move)[0, 0], compared_positions(size, move))
        for move in MOVES
    }
    there = rotate(original[None, None], torch.tensor([DEGREES]), "reflect")
    back = moved_back(there, "turn")[0, 0]
    ceiling = rank_correlation(original, back, compared_positions(size, "turn"))
    return Kept(
        method, found["shift"], found["turn"], ceiling, None if random is None else rank_correlation(original, random)
    )
