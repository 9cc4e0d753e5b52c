"""Similarity of a layer's outputs for images and for the rotated images (linear CKA)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.measures.rotation.inputs import Mask, check_inputs, rotated_images
from poolbench.measures.rotation.layers import kind_of, recorded_layers, recorded_outputs


def rotated_cka(model: nn.Module, images: Tensor, angles: Sequence[float], mask: Mask = "disc") -> pd.DataFrame:
    """Return the linear CKA of layer(x) with layer(rotated x): one row per layer and angle, in degrees.

    Columns: depth, layer, kind, angle, CKA (Kornblith et al. 2019), over images (n, c, h, w), with every
    position of a map as a feature. CKA is 1 if rotating the images changes the layer's outputs by no more
    than an orthogonal map and a scaling of feature space, and NaN if the layer is constant. It is not
    corrected for n: with more features than images, independent features score above 0, so compare at
    equal n.

    Memory: the activations of all n images at one angle, and n x n floats per layer. Raises UsageError for
    fewer than two images and for an unknown mask.
    """
    check_inputs(images, [0.0, 0.0], None, ("mean",), mask, "zeros")
    kinds = recorded_layers(model)
    model.eval()
    unrotated = _gram_matrices(model, rotated_images(images, [0.0], mask, "zeros"))
    rows = []
    for angle in angles:
        rotated = _gram_matrices(model, rotated_images(images, [angle], mask, "zeros"))
        for depth, (layer, gram) in enumerate(rotated.items()):
            norm = float(gram.norm() * unrotated[layer].norm())
            cka = float((gram * unrotated[layer]).sum()) / norm if norm > 0 else math.nan
            rows.append((depth, layer, kind_of(kinds, layer), float(angle), cka))
    return pd.DataFrame(rows, columns=["depth", "layer", "kind", "angle", "CKA"])


def _gram_matrices(model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """Return {layer: Gram matrix (n, n) of its centred outputs} for pixels (n, c, h, w)."""
    grams: dict[str, Tensor] = {}

    def keep(layer: str, output: Tensor) -> None:
        features = output.flatten(1)
        features = features - features.mean(dim=0)
        grams[layer] = (features @ features.T).double()

    with torch.no_grad(), recorded_outputs(model, keep):
        model(pixels)
    return grams
