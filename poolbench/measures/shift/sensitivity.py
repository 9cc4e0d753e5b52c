"""Distance between the features of an image and those of the shifted image, stage by stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.geometry import Boundary, move, shift_subpixel
from poolbench.recording import batch_size, outputs, recorded


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """Return the stages {path: module} of a network in order: the children of the first module with several.

    A wrapper with a single child that has parameters (input normalisation + network, say) is entered.
    """
    path, module = "", model
    while True:
        inner = [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]
        if len(inner) != 1 or not any(inner[0][1].children()):
            return {f"{path}{name}": child for name, child in module.named_children()} or {path: module}
        path, module = f"{path}{inner[0][0]}.", inner[0][1]


def layer_sensitivity(
    model: nn.Module, images: Tensor, shifts: Sequence[tuple[int, int]], boundary: Boundary = "circular"
) -> pd.DataFrame:
    """Return the change of each stage's features under each shift (dy, dx) of images (n, c, h, w), in pixels.

    One row per stage and shift: stage, depth (from 0), dy, dx, l2, cosine, aligned. With f(x) the features
    of a stage, flattened: ``l2`` is |f(shifted x) - f(x)| / |f(x)|, and ``cosine`` is one minus their cosine
    similarity, both averaged over the images (translation sensitivity, Kauderer-Abrams 2017). ``aligned``
    is ``l2`` with f(x) itself shifted by the same distance, interpolated where the stage is coarser than the
    shift: what remains is aliasing and the effect of the border. For vectors it equals ``l2``.

    Memory: the features of one batch; only sums are kept between batches.
    """
    paths = list(stages(model))
    sums: dict[tuple[str, int, int], Tensor] = {}
    for batch in images.split(batch_size(images)):
        original = _features(model, paths, batch)
        for dy, dx in shifts:
            moved = move(batch, torch.tensor([[dy, dx]]).expand(len(batch), 2).to(batch.device), boundary, 0)
            for path, features in _features(model, paths, moved).items():
                row = _distances(original[path], features, dy, dx, batch.shape[-2:])
                key = (path, dy, dx)
                sums[key] = sums[key] + row if key in sums else row
    rows = [
        (path, paths.index(path), dy, dx, *(float(value) / len(images) for value in total))
        for (path, dy, dx), total in sums.items()
    ]
    frame = pd.DataFrame(rows, columns=["stage", "depth", "dy", "dx", "l2", "cosine", "aligned"])
    return frame.sort_values(["depth", "dy", "dx"], ignore_index=True)


def pair_sensitivity(
    model: nn.Module, paths: Sequence[str], pairs: Iterable[tuple[Tensor, Tensor]], shift: tuple[int, int]
) -> pd.DataFrame:
    """Return the change of the features at module ``paths`` between pairs of images that differ by one shift.

    ``pairs`` yields batches (images (b, c, h, w), the same images shifted by the (dy, dx) px of ``shift``), so the
    shift may bring new content, as a moved crop does. One row per path: path, l2, cosine, aligned (see
    :func:`layer_sensitivity`).
    """
    sums: dict[str, Tensor] = {}
    count = 0
    for before, after in pairs:
        first, second = _features(model, paths, before), _features(model, paths, after)
        count += len(before)
        for path in paths:
            row = _distances(first[path], second[path], *shift, before.shape[-2:])
            sums[path] = sums[path] + row if path in sums else row
    rows = [(path, *(float(value) / count for value in total)) for path, total in sums.items()]
    return pd.DataFrame(rows, columns=["path", "l2", "cosine", "aligned"])


def _features(model: nn.Module, paths: Iterable[str], images: Tensor) -> dict[str, Tensor]:
    """Return {path: output (b, ...)} for one batch of images (b, c, h, w)."""
    features: dict[str, Tensor] = {}

    def keep(path: str, inputs: tuple[Any, ...], output: Tensor) -> None:
        # A copy: a later in-place activation may overwrite the output.
        features[path] = output.detach().clone()

    with recorded(model, paths, keep):
        outputs(model, images)
    return features


def _distances(original: Tensor, moved: Tensor, dy: int, dx: int, size: Sequence[int]) -> Tensor:
    """Return the sums (3,) over images of l2, cosine and aligned; ``size`` is that of the images (h, w)."""
    original, moved = original.double(), moved.double()
    aligned = original
    if original.dim() == 4:
        scale = original.shape[-2] / size[0], original.shape[-1] / size[1]
        aligned = shift_subpixel(original, dy * scale[0], dx * scale[1])
    before, after = original.flatten(1), moved.flatten(1)
    norm = before.norm(dim=1)
    both = norm * after.norm(dim=1)
    # Zero features: distance 0 if both are zero, 1 if only one is.
    cosine = torch.where(both > 0, (before * after).sum(dim=1) / both, (before == after).all(dim=1).double())
    length = torch.where(norm > 0, norm, 1.0)
    l2 = (after - before).norm(dim=1) / length
    rest = (after - aligned.flatten(1)).norm(dim=1) / length
    return torch.stack([l2.sum(), (1 - cosine).sum(), rest.sum()])
