"""The networks that the epoch loop trains: one, or several stacked (see ``replicas``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn

from poolbench.data import Split
from poolbench.engine.evaluation import evaluate, loss_of


class Networks(Protocol):
    """One or several networks of one architecture; the first axis of all tensors is the network (r)."""

    parameters: list[Tensor]
    """The parameters that the optimiser updates, in the order of ``nn.Module.parameters``."""
    exempt_dim: int
    """Parameters with up to this many dimensions are exempt from weight decay."""

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the training logits (r, b, outputs) of pixels (r, b, c, h, w)."""
        ...

    def losses(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        """Return the mean losses (r,) of logits (r, b, outputs) and labels (r, b)."""
        ...

    def evaluate(self, split: Split, mask: str) -> list[tuple[float, float]]:
        """Return (mean loss, accuracy) of each network over a split."""
        ...

    def split(self, value: Tensor) -> list[Tensor]:
        """Return the slice of each network from a tensor with the shape of a parameter."""
        ...

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Join the slices of :meth:`split` again."""
        ...

    def states(self) -> list[dict[str, Tensor]]:
        """Return each network's state dict."""
        ...

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Load the state dict of each network."""
        ...

    def close(self) -> list[nn.Module]:
        """Return the networks with the trained weights, in eval mode."""
        ...


class OneNetwork:
    """A single network."""

    exempt_dim = 1

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parameters: list[Tensor] = list(model.parameters())

    def logits(self, pixels: Tensor) -> Tensor:
        if not self.model.training:
            self.model.train()
        logits: Tensor = self.model(pixels[0])
        return logits[None]

    def losses(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        return loss_of(logits[0], labels[0], smoothing)[None]

    def evaluate(self, split: Split, mask: str) -> list[tuple[float, float]]:
        return [evaluate(self.model, split, mask)]

    def split(self, value: Tensor) -> list[Tensor]:
        return [value]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0]

    def states(self) -> list[dict[str, Tensor]]:
        return [self.model.state_dict()]

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        self.model.load_state_dict(states[0])

    def close(self) -> list[nn.Module]:
        return [self.model.eval()]
