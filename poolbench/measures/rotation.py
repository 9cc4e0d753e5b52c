"""How activations answer when images turn: variance over angles against variance over images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.data.augment import rotate_all
from poolbench.pooling import pooling_paths

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "convolution": (nn.Conv2d,),
    "normalisation": (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm),
    "activation": (nn.ReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh),
    "linear": (nn.Linear,),
}
BATCH = 250
AGGREGATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(dim=(-2, -1)),
    "max": lambda maps: maps.amax(dim=(-2, -1)),
}


def recorded_layers(model: nn.Module) -> dict[str, str]:
    """Return {module name: kind} of all layers that are recorded, in order of definition.

    Layers inside a pool or head do not count: networks that differ in their pooling are compared on the
    same layers.
    """
    pooling = pooling_paths(model)
    return {
        name: kind
        for name, module in model.named_modules()
        for kind, types in KINDS.items()
        if isinstance(module, types) and name not in pooling
    }


def record(model: nn.Module, images: Tensor, aggregation: str) -> dict[str, Tensor]:
    """Return {layer: (n, units)} activations of images (n, c, h, w), maps aggregated over space.

    The dictionary is in order of execution; units without space pass as they are. Outputs are copied
    when they appear, so a later in-place activation does not change them. Outputs that are neither
    maps nor vectors (tokens, say) are left out. Images pass in batches of 250; only the reduced
    activations are kept.
    """
    found: dict[str, list[Tensor]] = {}
    reduce = AGGREGATIONS[aggregation]

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            if output.dim() in (2, 4):
                found.setdefault(name, []).append(reduce(output) if output.dim() == 4 else output.clone())

        return hook

    model.eval()
    modules = dict(model.named_modules())
    with ExitStack() as stack, torch.no_grad():
        for name in recorded_layers(model):
            stack.enter_context(modules[name].register_forward_hook(keep(name)))
        for batch in images.split(BATCH):
            model(batch)
    return {name: torch.cat(parts) for name, parts in found.items()}


def activation_variance(
    model: nn.Module,
    images: Tensor,
    angles: Sequence[float],
    labels: Tensor | None = None,
    aggregation: Sequence[str] = ("mean", "max"),
) -> pd.DataFrame:
    """Return one row per unit and aggregation: layer, kind, unit, aggregation, TV, SV, V, V_stratified, dead.

    With a(t, x) the activation at angle t (degrees) of image x: TV = mean over x of the standard
    deviation over t, SV = mean over t of the standard deviation over x, V = TV / SV (Quiroga et al.
    2019; both with n - 1). 0 is invariant; near 1, turning an image moves the unit as much as changing
    it. A unit that never moves is ``dead`` and has V = NaN; one that moves only with the angle has
    V = inf. ``V_stratified`` is the mean over the classes of V within the class (finite ones; classes of
    two images or more), given labels (n,). The same images and angles serve both TV and SV.

    ``images`` (n, c, h, w) are pixels; mask them first (``disc_mask``) so that turning changes no
    corner. Holds all activations of one aggregation: angles x n x units floats.
    """
    kinds = recorded_layers(model)
    frames = []
    for name in aggregation:
        turns = [record(model, rotate_all(images, angle), name) for angle in angles]
        for position, layer in enumerate(turns[0]):
            values = np.stack([turn[layer].cpu().numpy() for turn in turns]).astype(np.float64)
            tv, sv, v = _variances(values)
            frame = pd.DataFrame({"TV": tv, "SV": sv, "V": v, "dead": (tv == 0) & (sv == 0)})
            frame["V_stratified"] = _stratified(values, labels) if labels is not None else np.nan
            frame.insert(0, "aggregation", name)
            frame.insert(0, "unit", np.arange(len(frame)))
            frame.insert(0, "kind", kinds[layer])
            frame.insert(0, "layer", layer)
            frame.insert(0, "depth", position)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def _variances(values: Array) -> tuple[Array, Array, Array]:
    """TV, SV and V (units,) of activations (angles, images, units)."""
    # A unit that is constant in floats is exactly constant once its first value is taken off.
    centred = values - values[:1, :1]
    tv = centred.std(axis=0, ddof=1).mean(axis=0)
    sv = centred.std(axis=1, ddof=1).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return tv, sv, tv / sv


def _stratified(values: Array, labels: Tensor) -> Array:
    classes = labels.cpu().numpy()
    # A class with a single image has no spread between images.
    names, counts = np.unique(classes, return_counts=True)
    members = [classes == name for name in names[counts > 1]]
    if not members:
        return np.full(values.shape[2], np.nan)
    per_class = np.stack([_variances(values[:, chosen])[2] for chosen in members])
    finite = np.isfinite(per_class)
    count = finite.sum(axis=0)
    total = np.where(finite, per_class, 0.0).sum(axis=0)
    mean: Array = np.divide(total, count, out=np.full(values.shape[2], np.nan), where=count > 0)
    return mean


def layer_means(units: pd.DataFrame) -> pd.DataFrame:
    """Return one row per layer and aggregation: means over the layer's finite units, and the share of dead ones."""
    finite = units.replace([np.inf, -np.inf], np.nan)
    keys = ["depth", "layer", "kind", "aggregation"]
    means = finite.groupby(keys)[["TV", "SV", "V", "V_stratified"]].mean()
    means["dead"] = units.groupby(keys)["dead"].mean()
    return means.reset_index()
