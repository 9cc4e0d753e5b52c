"""Places in a network where tensors are read, and forward passes that read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from poolbench.recording import recorded


@dataclass(frozen=True)
class Tap:
    """The first input or the output of the module at ``path``, in its ``call``-th call of a forward pass (from 0)."""

    path: str
    call: int = 0
    side: Literal["input", "output"] = "output"


def read(network: nn.Module, images: Tensor, taps: Sequence[Tap]) -> tuple[Tensor, list[Tensor]]:
    """Return the network's output for images (b, c, h, w), and a copy of the tensor at each tap, without gradients.

    Raises AttributeError for a path that the network does not have, KeyError for a call that does not happen.
    """
    found: dict[Tap, Tensor] = {}
    calls: Counter[str] = Counter()
    wanted = set(taps)

    def keep(path: str, inputs: tuple[Any, ...], output: Any) -> None:
        number = calls[path]
        calls[path] += 1
        for tap in (Tap(path, number, "input"), Tap(path, number, "output")):
            if tap in wanted:
                # A later layer may overwrite its input.
                found[tap] = (inputs[0] if tap.side == "input" else output).clone()

    with torch.no_grad(), recorded(network, dict.fromkeys(tap.path for tap in taps), keep):
        output: Tensor = network(images)
    return output, [found[tap] for tap in taps]
