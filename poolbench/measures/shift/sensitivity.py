"""How far the features of a shifted image lie from those of the image, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.geometry import Boundary, move, shift_subpixel
from poolbench.measures.shift.passes import batch_size, outputs


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """Return {path: module} of a network's stages in order: the children of the first module that has several.

    Wrappers around a single module with parameters (a normalisation of the input, say) are entered.
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
    """Return how features answer to each shift (dy, dx) of images (n, c, h, w): one row per stage and shift.

    With f the features of a stage: ``l2`` is |f(moved x) - f(x)| / |f(x)| and ``cosine`` one minus their
    cosine, both over the whole map and averaged over the images (translation sensitivity, Kauderer-Abrams
    2017). Maps move with their input, so ``aligned`` compares with f(x) shifted by as much, in fractions
    of a step where the stage is coarser than the shift: what is left is no motion but aliasing and the
    border. Vectors, which have nothing to align, give ``l2``. ``depth`` counts the stages from 0.
    Sums only are kept between batches of images.
    """
    recorded = stages(model)
    sums: dict[tuple[str, int, int], Tensor] = {}
    for batch in images.split(batch_size(images)):
        original = _features(model, recorded, batch)
        for dy, dx in shifts:
            moved = move(batch, torch.tensor([[dy, dx]]).expand(len(batch), 2).to(batch.device), boundary, 0)
            for name, features in _features(model, recorded, moved).items():
                row = _distances(original[name], features, dy, dx, batch.shape[-2:])
                key = (name, dy, dx)
                sums[key] = sums[key] + row if key in sums else row
    order = {name: depth for depth, name in enumerate(recorded)}
    rows = [
        (name, order[name], dy, dx, *(float(value) / len(images) for value in total))
        for (name, dy, dx), total in sums.items()
    ]
    frame = pd.DataFrame(rows, columns=["stage", "depth", "dy", "dx", "l2", "cosine", "aligned"])
    return frame.sort_values(["depth", "dy", "dx"], ignore_index=True)


def _features(model: nn.Module, recorded: dict[str, nn.Module], images: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, module in recorded.items():

            def keep(module: nn.Module, inputs: object, output: Tensor, name: str = name) -> None:
                # A later activation may work in place.
                found[name] = output.detach().clone()

            stack.callback(module.register_forward_hook(keep).remove)
        outputs(model, images)
    return found


def _distances(original: Tensor, moved: Tensor, dy: int, dx: int, size: Sequence[int]) -> Tensor:
    """Return the sums (3,) over images of l2, cosine distance and aligned l2."""
    original, moved = original.double(), moved.double()
    aligned = original
    if original.dim() == 4:
        scale = original.shape[-2] / size[0], original.shape[-1] / size[1]
        aligned = shift_subpixel(original, dy * scale[0], dx * scale[1])
    before, after = original.flatten(1), moved.flatten(1)
    norm = before.norm(dim=1)
    both = norm * after.norm(dim=1)
    # A stage that is dead in both has not moved; one that is dead in one has moved altogether.
    cosine = torch.where(both > 0, (before * after).sum(dim=1) / both, (before == after).all(dim=1).double())
    length = torch.where(norm > 0, norm, 1.0)
    l2 = (after - before).norm(dim=1) / length
    rest = (after - aligned.flatten(1)).norm(dim=1) / length
    return torch.stack([l2.sum(), (1 - cosine).sum(), rest.sum()])
