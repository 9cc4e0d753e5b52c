"""Two other views of a layer under rotation: its local equivariance error, its similarity to itself."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.geometry import disc_mask
from poolbench.measures.rotation.layers import kind_of, listening, recorded_layers
from poolbench.measures.rotation.variance import Mask, check, turned

SIDE = 1e-4  # pixels


def local_equivariance_error(model: nn.Module, images: Tensor, mask: Mask = "disc", chunk: int = 16) -> pd.DataFrame:
    """Return one row per layer: depth, layer, kind, LEE, LEE_relative, at images (n, c, h, w).

    The Lie derivative of a layer F along rotation is d/dt of turn(F(turn(x, t)), -t) at t = 0, t in
    radians; vectors are not turned back. ``LEE`` is the mean of its square over images and units (Gruver
    et al. 2022), ``LEE_relative`` the root of LEE over the units' mean variance across the images: 1
    means that turning by one radian at this rate moves a unit by its standard deviation. By forward mode
    (``torch.func.jvp``) through bilinear sampling. ``mask`` blackens
    all pixels, and leaves out all positions, outside the disc.

    Memory: two copies of the network's activations for ``chunk`` images. Raises UsageError for fewer than two images.
    """
    check(images, [0.0, 0.0], None, ("mean",), mask, "zeros")
    kinds = recorded_layers(model)
    sums: dict[str, Tensor] = {}  # (3, units) over the images: squared slopes, outputs, squared outputs
    model.eval()
    for part in images.split(chunk):
        names, values, steps = _slopes(model, turned(part, [0.0], mask, "zeros"))
        for name, value, step in zip(names, values, steps, strict=True):
            own, slope = _inside(value, mask).double(), _inside(step, mask).double()
            found = torch.stack([slope.square().sum(dim=0), own.sum(dim=0), own.square().sum(dim=0)])
            sums[name] = sums[name] + found if name in sums else found
    rows = []
    for depth, (name, found) in enumerate(sums.items()):
        slopes, first, second = found / len(images)
        lee, variance = float(slopes.mean()), float((second - first.square()).clamp(min=0).mean())
        relative = math.sqrt(lee / variance) if variance > 0 else math.nan
        rows.append((depth, name, kind_of(kinds, name), lee, relative))
    return pd.DataFrame(rows, columns=["depth", "layer", "kind", "LEE", "LEE_relative"])


def _slopes(model: nn.Module, pixels: Tensor) -> tuple[list[str], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return (layers, outputs, Lie derivatives of the outputs) at pixels (b, c, h, w)."""
    names: list[str] = []

    def outputs(angle: Tensor) -> tuple[Tensor, ...]:
        heard: dict[str, Tensor] = {}
        # Copies: what an in-place activation changes must not change here.
        with listening(model, lambda layer, output: heard.update({layer: output.clone()})):
            model(_turned_by(pixels, angle))
        names[:] = heard
        return tuple(_turned_by(own, -angle) if own.dim() == 4 else own for own in heard.values())

    at_rest = torch.zeros((), dtype=pixels.dtype, device=pixels.device)
    with torch.no_grad(), warnings.catch_warnings():
        # torch's own rules of forward mode use what torch itself calls deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        values, steps = torch.func.jvp(outputs, (at_rest,), (torch.ones_like(at_rest),))  # type: ignore[misc]
    return names, values, steps


def _turned_by(images: Tensor, radians: Tensor) -> Tensor:
    """Turn all images (b, c, h, w) by an angle near 0, right to first order; a border goes on as it is.

    A bilinear image has a kink at every pixel. The mean of two looks, a hair to either side, has the
    central difference for a slope.
    """
    height, width = images.shape[-2:]
    rows, columns = (torch.arange(n, dtype=images.dtype, device=images.device) - (n - 1) / 2 for n in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    half = torch.tensor([width / 2, height / 2], dtype=images.dtype, device=images.device)
    step = radians * (torch.stack([-y, x], dim=-1) / half)
    stacked = images.flatten(0, 1)[None]
    found = torch.zeros_like(stacked)
    for side in (-SIDE, SIDE):
        grid = torch.stack([x + side, y + side], dim=-1) / half + step
        found = found + F.grid_sample(stacked, grid[None], padding_mode="border", align_corners=False) / 2
    turned: Tensor = found.view(images.shape)
    return turned


def _inside(output: Tensor, mask: Mask) -> Tensor:
    """Return an output (b, units, *space) as (b, units), positions outside the disc left out."""
    if output.dim() == 4 and mask == "disc":
        output = output[:, :, disc_mask((output.shape[-2], output.shape[-1]), output.device)]
    return output.flatten(1)


def rotated_cka(model: nn.Module, images: Tensor, angles: Sequence[float], mask: Mask = "disc") -> pd.DataFrame:
    """Return one row per layer and angle: depth, layer, kind, angle, CKA of layer(x) with layer(turned x).

    Linear CKA (Kornblith et al. 2019) over images (n, c, h, w), every position of a map a feature; 1
    where turning the images moves the layer's outputs by no more than one rotation and scaling of its
    whole space. Not corrected for the number of images: independent features score above 0 where there
    are more of them than images, so compare at equal n. NaN where a layer is constant.

    Memory: the activations of all n images at one angle, and n x n floats per layer.
    """
    check(images, [0.0, 0.0], None, ("mean",), mask, "zeros")
    kinds = recorded_layers(model)
    model.eval()

    def similarities(angle: float) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def keep(layer: str, output: Tensor) -> None:
            features = output.flatten(1)
            features = features - features.mean(dim=0)
            found[layer] = (features @ features.T).double()

        with torch.no_grad(), listening(model, keep):
            model(turned(images, [angle], mask, "zeros"))
        return found

    upright = similarities(0.0)
    rows = []
    for angle in angles:
        for depth, (layer, gram) in enumerate(similarities(angle).items()):
            norm = float(gram.norm() * upright[layer].norm())
            cka = float((gram * upright[layer]).sum()) / norm if norm > 0 else math.nan
            rows.append((depth, layer, kind_of(kinds, layer), float(angle), cka))
    return pd.DataFrame(rows, columns=["depth", "layer", "kind", "angle", "CKA"])
