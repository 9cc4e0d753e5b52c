"""Which layers of a network are recorded, and their outputs during forward passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from poolbench.measures.rotation.controls import QuarterTurns
from poolbench.pooling import pooling_paths
from poolbench.recording import recorded

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "convolution": (nn.Conv2d,),
    "normalisation": (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm),
    "linear": (nn.Linear,),
    "logits": (QuarterTurns,),
}
# Activations of torch and timm share no base class, but each library defines them in one package.
ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations")
NO_ACTIVATIONS = (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d, nn.MultiheadAttention)
CHANNELS_LAST = (nn.Linear, nn.LayerNorm)


def recorded_layers(model: nn.Module) -> dict[str, str]:
    """Return {path: kind} of the recorded layers in order of definition.

    Recorded are convolutions, normalisations, activations and linear layers; the output of a residual block
    is that of its last activation. Layers inside pools and heads are left out, so that networks that differ
    in their pooling are compared on the same layers. So are layers inside :class:`QuarterTurns`, which
    counts as one layer.
    """
    excluded = pooling_paths(model)
    for path, module in model.named_modules():
        if isinstance(module, QuarterTurns):
            excluded |= {part for part, _ in module.named_modules(prefix=path) if part != path}
    kinds = {path: _kind(module) for path, module in model.named_modules() if path not in excluded}
    return {path: kind for path, kind in kinds.items() if kind is not None}


def _kind(module: nn.Module) -> str | None:
    for kind, types in KINDS.items():
        if isinstance(module, types):
            return kind
    activation = any(base.__module__.startswith(ACTIVATIONS) for base in type(module).__mro__)
    return "activation" if activation and not isinstance(module, NO_ACTIVATIONS) else None


def kind_of(kinds: dict[str, str], layer: str) -> str:
    """Return the kind of a layer named as in :func:`recorded_outputs`, from the kinds {path: kind}."""
    return kinds[layer.partition(":")[0]]


@contextmanager
def recorded_outputs(model: nn.Module, record: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``record(layer, output)`` for every recorded layer of each forward pass, in order of execution.

    Outputs are (b, units) or (b, units, *space). For linear layers, layer norms and an activation directly
    behind one, the last axis holds the units and is moved there. Outputs are no copies: a later in-place
    activation may overwrite them. The second call of a module within one pass is named "path:2". Outputs
    without the batch as their first axis (attention windows, for example) are skipped.
    """
    calls: Counter[str] = Counter()
    previous: list[Tensor] = []  # the latest output, if its units are on the last axis
    batch = 0
    modules = dict(model.named_modules())

    def start(inputs: tuple[Any, ...]) -> None:
        nonlocal batch
        calls.clear()
        previous.clear()
        batch = len(inputs[0])

    def keep(path: str, inputs: tuple[Any, ...], output: Any) -> None:
        calls[path] += 1
        if not isinstance(output, Tensor) or output.dim() < 2 or len(output) != batch:
            return
        last = type(modules[path]) in CHANNELS_LAST or (bool(previous) and inputs[0] is previous[0])
        previous[:] = [output] if last else []
        layer = path if calls[path] == 1 else f"{path}:{calls[path]}"
        record(layer, output.movedim(-1, 1) if last and output.dim() > 2 else output)

    with recorded(model, recorded_layers(model), keep, start):
        yield
