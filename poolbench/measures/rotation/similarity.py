"""Similarity of a layer's outputs for images and for the rotated images (linear CKA)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.measures.rotation.inputs import Mask, check_inputs, rotated_images
from poolbench.measures.rotation.layers import kind_of, recorded_layers, recorded_outputs

FEWEST_IMAGES = 4


def rotated_cka(model: nn.Module, images: Tensor, angles: Sequence[float], mask: Mask = "disc") -> pd.DataFrame:
    """Return the linear CKA of layer(x) with layer(rotated x): one row per layer and angle, in degrees.

    Columns: depth, layer, kind, angle, CKA, null. CKA over images (n, c, h, w), with every position of a map as a
    feature (Kornblith et al. 2019), from unbiased estimates of HSIC (Song et al. 2012; Nguyen et al. 2021): 0 on
    average for unrelated features, however many there are, and 1 if rotating the images changes the layer's
    outputs by no more than an orthogonal map and a scaling of feature space. ``null`` is the same with the
    rotated images in another order, so that no image meets itself: how far from 0 chance takes n images. NaN if
    the layer is constant.

    Memory: n x n floats per layer, and a forward pass of n images. Raises UsageError for fewer
    than four images and for an unknown mask.
    """
    check_inputs(images, [0.0, 0.0], None, ("mean",), mask, "zeros")
    if len(images) < FEWEST_IMAGES:
        raise UsageError(f"CKA needs at least {FEWEST_IMAGES} images, got {len(images)}")
    kinds = recorded_layers(model)
    model.eval()
    others = _other_images(len(images)).to(images.device)
    unrotated = _centred_grams(model, images, 0.0, mask)
    rows = []
    for angle in angles:
        grams = _centred_grams(model, images, angle, mask) if angle % 360 else unrotated
        for depth, (layer, rotated) in enumerate(grams.items()):
            values = (cka(unrotated[layer], part) for part in (rotated, rotated[others][:, others]))
            rows.append((depth, layer, kind_of(kinds, layer), float(angle), *values))
    return pd.DataFrame(rows, columns=["depth", "layer", "kind", "angle", "CKA", "null"])


def u_centred(gram: Tensor) -> Tensor:
    """Return a Gram matrix (n, n) with diagonal 0 and rows and columns that sum to 0 (Szekely and Rizzo 2014).

    The mean product of two such matrices is the unbiased estimate of HSIC up to a factor (Song et al. 2012).
    """
    n = len(gram)
    gram = gram.double() - torch.diag(gram.double().diagonal())
    rows = gram.sum(dim=1)
    centred = gram - (rows[:, None] + rows) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    return centred - torch.diag(centred.diagonal())


def cka(first: Tensor, second: Tensor) -> float:
    """Return the CKA of two representations of n images from their U-centred Gram matrices (n, n); NaN if constant."""
    norm = float(first.norm() * second.norm())
    return float((first * second).sum()) / norm if norm > 0 else math.nan


def _other_images(count: int) -> Tensor:
    """Return a random order (count,) of images in which none keeps its place: the same one every time."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    others = torch.empty_like(order)
    others[order] = order.roll(1)
    return others


def _centred_grams(model: nn.Module, images: Tensor, angle: float, mask: Mask) -> dict[str, Tensor]:
    """Return {layer: U-centred Gram matrix (n, n) of its outputs} for images (n, c, h, w) rotated by an angle."""
    grams: dict[str, Tensor] = {}

    def keep(layer: str, output: Tensor) -> None:
        # From an actual output first, so that a constant layer gives exactly 0. Centring keeps digits, nothing else.
        features = output.flatten(1) - output[:1].flatten(1)
        features = features - features.mean(dim=0)
        grams[layer] = u_centred(features @ features.T)

    with torch.no_grad(), recorded_outputs(model, keep):
        model(rotated_images(images, [angle], mask, "zeros"))
    return grams
