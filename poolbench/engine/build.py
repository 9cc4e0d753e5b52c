"""From a cell to an initialised network that takes pixels in [0, 1]."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container
from typing import Any

import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.core import Cell, derive_seed
from poolbench.data import Dataset
from poolbench.pooling import pooling_paths
from poolbench.registry import TIMM


class Normalize(nn.Module):
    """Pixels (b, c, h, w) in [0, 1] -> (pixels - mean) / std per channel.

    Part of the network, so that every shift, rotation and mask acts on pixels: black stays black.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def initialise(model: nn.Module, seed: int, only: Container[str] | None = None) -> None:
    """Draw every module's parameters from a stream of its own, named by seed and module path.

    Two networks that differ in their pools thus start from the same weights wherever names and
    shapes agree, however many numbers the pools drew. ``only`` restricts it to the modules of
    these paths.
    """
    for name, module in model.named_modules():
        reset: Any = getattr(module, "reset_parameters", None)
        if reset is not None and (only is None or name in only):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(seed, f"weights of {name}"))
                reset()


def build_model(cell: Cell, dataset: Dataset, device: str) -> nn.Module:
    """Return the cell's network on the device, its weights drawn from the cell's seed.

    The data option ``normalize`` is "standard" (the default: mean and std of the training split) or
    "unit" (pixels as they are); ``batch_norm`` is "moving" (the default) or "frozen": statistics stay
    as they are from the first evaluation on, which in training ends the first epoch.
    """
    standard = cell.data.get("normalize", "standard") == "standard"
    channels = dataset.in_shape[0]
    with torch.random.fork_rng(devices=[]):
        # For parameters that a module draws without a reset_parameters of its own.
        torch.manual_seed(derive_seed(cell.seed, "construction"))
        network = create_model(
            cell.architecture,
            dataset.in_shape,
            len(dataset.classes),
            pool=cell.pool,
            head=cell.head,
            **cell.model,  # type: ignore[arg-type]
        )
    # A timm model keeps timm's weights, drawn (or loaded) before the surgery and so the same for every pool.
    initialise(network, cell.seed, pooling_paths(network) if cell.architecture.startswith(TIMM) else None)
    mean, std = (dataset.mean, dataset.std) if standard else ((0.0,) * channels, (1.0,) * channels)
    model = nn.Sequential(OrderedDict(normalize=Normalize(mean, std), network=network))
    if cell.data.get("batch_norm", "moving") == "frozen":
        _freeze_at_first_evaluation(model)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _freeze_at_first_evaluation(model: nn.Module) -> None:
    """Make batch norms deaf to ``train()`` once ``eval()`` was called, as if nobody had called it again."""

    def deaf(module: nn.Module) -> Callable[[bool], nn.Module]:
        def train(mode: bool = True) -> nn.Module:
            return type(module).train(module, mode and module.training)

        return train

    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.train = deaf(module)  # type: ignore[method-assign, assignment]
