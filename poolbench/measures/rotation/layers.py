"""Which layers are recorded, and how their outputs are heard while a network runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from poolbench.measures.rotation.controls import QuarterTurns
from poolbench.pooling import pooling_paths

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "convolution": (nn.Conv2d,),
    "normalisation": (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm),
    "linear": (nn.Linear,),
    "logits": (QuarterTurns,),
}
# torch's and timm's activations have no class in common but stand together.
ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations")
NO_ACTIVATIONS = (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d, nn.MultiheadAttention)
CHANNELS_LAST = (nn.Linear, nn.LayerNorm)


def recorded_layers(model: nn.Module) -> dict[str, str]:
    """Return {module name: kind} of all layers that are recorded, in order of definition.

    Convolutions, normalisations, activations and linear layers; the output of a residual block is that
    of its last activation. Layers inside a pool or head do not count: networks that differ in their
    pooling are compared on the same layers. Nor do those inside a ``QuarterTurns``, which stands for itself.
    """
    left_out = pooling_paths(model)
    for name, module in model.named_modules():
        if isinstance(module, QuarterTurns):
            left_out |= {part for part, _ in module.named_modules(prefix=name) if part != name}
    kinds = {name: _kind(module) for name, module in model.named_modules() if name not in left_out}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _kind(module: nn.Module) -> str | None:
    for kind, types in KINDS.items():
        if isinstance(module, types):
            return kind
    found = any(base.__module__.startswith(ACTIVATIONS) for base in type(module).__mro__)
    return "activation" if found and not isinstance(module, NO_ACTIVATIONS) else None


def kind_of(kinds: dict[str, str], layer: str) -> str:
    """Return the kind of a layer as :func:`listening` names it, from those of the modules."""
    return kinds[layer.partition(":")[0]]


@contextmanager
def listening(model: nn.Module, hear: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``hear(layer, output)`` for every recorded layer of each forward pass, in order of execution.

    Outputs are (b, units) or (b, units, *space): a linear layer's and a layer norm's last axis is their
    units, and so is that of an activation right behind one. They are no copies: an in-place activation
    may change them as soon as ``hear`` returns. The second call of a module within one pass is called
    "name:2". Outputs that do not have the batch in front (attention windows, say) are not heard.
    """
    calls: Counter[str] = Counter()
    before: list[Tensor] = []  # the last output with its units on the last axis
    batch = 0

    def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal batch
        calls.clear()
        before.clear()
        batch = len(inputs[0])

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] += 1
            if not isinstance(output, Tensor) or output.dim() < 2 or len(output) != batch:
                return
            last = type(module) in CHANNELS_LAST or (bool(before) and inputs[0] is before[0])
            before[:] = [output] if last else []
            layer = name if calls[name] == 1 else f"{name}:{calls[name]}"
            hear(layer, output.movedim(-1, 1) if last and output.dim() > 2 else output)

        return hook

    modules = dict(model.named_modules())
    with ExitStack() as stack:
        stack.enter_context(model.register_forward_pre_hook(begin))
        for name in recorded_layers(model):
            stack.enter_context(modules[name].register_forward_hook(hook_of(name)))
        yield
