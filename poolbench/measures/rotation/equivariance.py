"""Local equivariance error: how far a layer is from commuting with infinitesimal rotations (Gruver et al. 2022)."""

from __future__ import annotations

import math
import warnings

import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.geometry import disc_mask
from poolbench.measures.rotation.inputs import Mask, check_inputs, rotated_images
from poolbench.measures.rotation.layers import kind_of, recorded_layers, recorded_outputs


def local_equivariance_error(model: nn.Module, images: Tensor, mask: Mask = "disc", chunk: int = 16) -> pd.DataFrame:
    """Return one row per layer at images (n, c, h, w): depth, layer, kind, LEE, LEE_relative.

    The Lie derivative of a layer F along rotation R is d/dt of R(-t) F(R(t) x) at t = 0, t in radians; for
    vectors it is d/dt of F(R(t) x). ``LEE`` is the mean of its square over images and units (Gruver et al.
    2022). ``LEE_relative`` is sqrt(LEE / variance), with the variance over the images averaged over the
    units: 1 means that a unit changes by its standard deviation per radian. Computed in forward mode
    (``torch.func.jvp``) with central differences of the pixels. ``mask`` blackens pixels and leaves out
    positions outside the inscribed disc.

    Memory: two copies of the network's activations for ``chunk`` images. Raises UsageError for fewer than
    two images and for an unknown mask.
    """
    check_inputs(images, [0.0, 0.0], None, ("mean",), mask, "zeros")
    kinds = recorded_layers(model)
    sums: dict[str, Tensor] = {}  # (3, units): squared derivatives, outputs and squared outputs, over the images
    model.eval()
    for part in images.split(chunk):
        layers, outputs, derivatives = _derivatives(model, rotated_images(part, [0.0], mask, "zeros"))
        for layer, output, derivative in zip(layers, outputs, derivatives, strict=True):
            value, slope = _inside(output, mask).double(), _inside(derivative, mask).double()
            part_sums = torch.stack([slope.square().sum(dim=0), value.sum(dim=0), value.square().sum(dim=0)])
            sums[layer] = sums[layer] + part_sums if layer in sums else part_sums
    rows = []
    for depth, (layer, total) in enumerate(sums.items()):
        slopes, first, second = total / len(images)
        lee, variance = float(slopes.mean()), float((second - first.square()).clamp(min=0).mean())
        relative = math.sqrt(lee / variance) if variance > 0 else math.nan
        rows.append((depth, layer, kind_of(kinds, layer), lee, relative))
    return pd.DataFrame(rows, columns=["depth", "layer", "kind", "LEE", "LEE_relative"])


def _derivatives(model: nn.Module, pixels: Tensor) -> tuple[list[str], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return (layers, outputs, Lie derivatives of the outputs) at pixels (b, c, h, w)."""
    layers: list[str] = []

    def equivariant_outputs(angle: Tensor) -> tuple[Tensor, ...]:
        recorded: dict[str, Tensor] = {}
        # Copies: a later in-place activation may overwrite an output.
        with recorded_outputs(model, lambda layer, output: recorded.update({layer: output.clone()})):
            model(_rotated_slightly(pixels, angle))
        layers[:] = recorded
        return tuple(_rotated_slightly(output, -angle) if output.dim() == 4 else output for output in recorded.values())

    zero = torch.zeros((), dtype=pixels.dtype, device=pixels.device)
    with torch.no_grad(), warnings.catch_warnings():
        # torch's forward-mode rules call functions that torch has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        outputs, derivatives = torch.func.jvp(equivariant_outputs, (zero,), (torch.ones_like(zero),))  # type: ignore[misc]
    return layers, outputs, derivatives


def _rotated_slightly(images: Tensor, radians: Tensor) -> Tensor:
    """Rotate all images (b, c, h, w) by an angle near 0, correct to first order, with the border replicated.

    The first two terms of the Taylor series, with central differences of the pixels as derivatives. That is what
    bilinear interpolation gives on average over both sides of a pixel, where it is not differentiable.
    """
    height, width = images.shape[-2:]
    row, column = (torch.arange(n, device=images.device) for n in (height, width))
    y, x = ((index - (len(index) - 1) / 2).to(images.dtype) for index in (row, column))
    down = images[..., (row + 1).clamp(max=height - 1), :] - images[..., (row - 1).clamp(min=0), :]
    right = images[..., (column + 1).clamp(max=width - 1)] - images[..., (column - 1).clamp(min=0)]
    return images + radians * (down * x - right * y[:, None]) / 2


def _inside(output: Tensor, mask: Mask) -> Tensor:
    """Return an output (b, units, *space) as (b, values), without positions outside the disc if ``mask`` is set."""
    if output.dim() == 4 and mask == "disc":
        output = output[:, :, disc_mask((output.shape[-2], output.shape[-1]), output.device)]
    return output.flatten(1)
