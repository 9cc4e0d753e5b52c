"""Replicas: networks that differ only by seed, trained as one network with stacked parameters under vmap.

A replica ends where its single run ends, up to rounding: within 1e-9 after 20 steps in float64 for every
architecture, pool and head that vmap supports, within 1e-5 in float32 without BatchNorm. The gradient of a bias
before BatchNorm is pure rounding, which Adam scales to full steps, and narrow deep networks are chaotic; there,
float32 replicas differ from their single runs as results of two machines do. Random layers (dropout, stochastic
pools) draw different numbers in each replica, and these depend on which seeds are stacked.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from poolbench.data import Split, to_pixels
from poolbench.engine.evaluation import EVALUATION_BATCH, loss_of
from poolbench.measures.classification import predictions

MEMORY_SHARE = 0.7  # of the free device memory; the rest is for fragmentation and the data


class Stack:
    """Networks (r) of one architecture as one network with stacked parameters; see ``networks.Networks``.

    BatchNorm keeps running statistics per network. The given networks keep their weights until :meth:`close`.
    """

    exempt_dim = 2

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = models
        # The code of the first network, called with the stacked parameters and buffers.
        self.skeleton = models[0]
        self.named_parameters, self.buffers = stack_module_state(list(models))
        self.parameters: list[Tensor] = list(self.named_parameters.values())

    def _forward(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], pixels: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.skeleton, (parameters, buffers), (pixels,))
        return logits

    def logits(self, pixels: Tensor) -> Tensor:
        if not self.skeleton.training:
            self.skeleton.train()
        forward = vmap(self._forward, randomness="different")
        logits: Tensor = forward(self.named_parameters, self.buffers, pixels)
        return logits

    def losses(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        losses: Tensor = vmap(lambda own, targets: loss_of(own, targets, smoothing))(logits, labels)
        return losses

    def evaluate(self, split: Split, mask: str) -> list[tuple[float, float]]:
        self.skeleton.eval()
        forward = vmap(self._forward, in_dims=(0, 0, None))
        with torch.no_grad():
            batches = (to_pixels(part, mask) for part in split.images.split(EVALUATION_BATCH))
            logits = torch.cat([forward(self.named_parameters, self.buffers, pixels) for pixels in batches], dim=1)
            losses = torch.stack([loss_of(own, split.labels) for own in logits])
            right = torch.stack([(predictions(own) == split.labels).double().mean() for own in logits])
        return list(zip(losses.tolist(), right.tolist(), strict=True))

    def split(self, value: Tensor) -> list[Tensor]:
        # Copies, because torch.save stores a slice together with the whole stack.
        return [part.clone() for part in value.unbind()]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts))

    def states(self) -> list[dict[str, Tensor]]:
        persistent = self.skeleton.state_dict().keys()
        stacked = {**self.named_parameters, **self.buffers}
        parts = {name: self.split(stacked[name].detach()) for name in persistent}
        return [{name: own[index] for name, own in parts.items()} for index in range(len(self.models))]

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        stacked = {**self.named_parameters, **self.buffers}
        with torch.no_grad():
            for name in states[0]:
                stacked[name].copy_(self.join([state[name] for state in states]))

    def close(self) -> list[nn.Module]:
        for model, state in zip(self.models, self.states(), strict=True):
            model.load_state_dict(state)
        return [model.eval() for model in self.models]


def can_stack(model: nn.Module, pixels: Tensor) -> bool:
    """Return whether vmap supports the network, by training and evaluating two replicas on pixels (b, c, h, w).

    vmap does not support control flow that depends on values, and it falls back to a loop for operations without a
    batching rule. The network and the random state are unchanged afterwards.
    """
    training = model.training
    try:
        stack = Stack([model, model])
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[pixels.device] if pixels.is_cuda else []):
            warnings.filterwarnings("error", message="There is a performance drop")
            stack.logits(torch.stack([pixels, pixels])).sum().backward()
            model.eval()
            with torch.no_grad():
                vmap(stack._forward, in_dims=(0, 0, None))(stack.named_parameters, stack.buffers, pixels)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, UserWarning):
        return False
    finally:
        model.train(training)
    return True


def stack_limit(model: nn.Module, pixels: Tensor, most: int) -> int:
    """Return how many replicas, at most ``most``, can be stacked for batches like pixels (b, c, h, w).

    1 if vmap does not support the network. On a GPU as many as fit into the free memory, extrapolated from two.
    """
    if not pixels.is_cuda:
        return most if can_stack(model, pixels) else 1
    device = pixels.device
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    if not can_stack(model, pixels):
        return 1
    each = (torch.cuda.max_memory_allocated(device) - before) / 2
    # Adam's two moments, and the copy of the weights in the network itself.
    each += 3 * sum(parameter.nbytes for parameter in model.parameters())
    return max(1, min(most, int(MEMORY_SHARE * free / each)))
