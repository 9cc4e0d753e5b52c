"""Building the network of a cell: it takes pixels in [0, 1], its weights come from the seed."""

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

    It is part of the network, so that shifts, rotations and masks act on pixels, where black is 0.
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
    """Draw the parameters of every module from a random stream derived from the seed and the module's path.

    Networks that differ in their pools therefore start from the same weights wherever paths and shapes agree.
    ``only`` restricts this to the modules at these paths.
    """
    for name, module in model.named_modules():
        reset: Any = getattr(module, "reset_parameters", None)
        if reset is not None and (only is None or name in only):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(seed, f"weights of {name}"))
                reset()


def build_model(cell: Cell, dataset: Dataset, device: str) -> nn.Module:
    """Return the cell's network on the device, weights drawn from the cell's seed; it takes pixels in [0, 1]."""
    with torch.random.fork_rng(devices=[]):
        # For parameters of modules without a reset_parameters method.
        torch.manual_seed(derive_seed(cell.seed, "construction"))
        network = create_model(
            cell.architecture.name,
            dataset.in_shape,
            len(dataset.classes),
            pool=cell.pool,
            head=cell.head,
            padding_mode=cell.padding_mode,  # type: ignore[arg-type]
            **cell.architecture.options,  # type: ignore[arg-type]
        )
    # A timm model keeps timm's weights, drawn (or loaded) before the surgery and so the same for every pool.
    initialise(network, cell.seed, pooling_paths(network) if cell.architecture.name.startswith(TIMM) else None)
    model = nn.Sequential(OrderedDict(normalize=Normalize(dataset.mean, dataset.std), network=network))
    if cell.train.batch_norm == "frozen":
        _freeze_at_first_evaluation(model)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _freeze_at_first_evaluation(model: nn.Module) -> None:
    """Freeze BatchNorm statistics after the first ``eval()``, which in training ends the first epoch."""

    def frozen(module: nn.Module) -> Callable[[bool], nn.Module]:
        def train(mode: bool = True) -> nn.Module:
            return type(module).train(module, mode and module.training)

        return train

    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.train = frozen(module)  # type: ignore[method-assign, assignment]
