"""One recorded forward pass: which torch functions ran, in which modules, and which output became which input."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from poolbench.core import UsageError

# A tensor that becomes a Python value can decide a branch, which another image may take differently.
CONVERSIONS = {"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy"}


@dataclass(frozen=True)
class Op:
    """A call of a torch function that takes or returns values (see ``Trace``)."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arguments: tuple[Any, ...]  # without tensors


@dataclass
class Call:
    """A call of the module at ``path``; it ran the functions ``ops[start:stop]`` of the trace.

    ``unary``: the module was given one value and nothing else, so it may become a part of an nn.Sequential.
    """

    path: str
    inputs: tuple[int, ...]
    start: int
    unary: bool
    outputs: tuple[int, ...] = ()
    stop: int = 0

    def covers(self, op: int) -> bool:
        return self.start <= op < self.stop


@dataclass
class Trace:
    """A forward pass as a graph.

    A value is a tensor that depends on the image, between two changes; values are numbered in the order in which they
    came to be, the image is 0. ``calls`` are in the order in which the modules were entered. ``branches`` is the
    path of the first module that turned a value into a Python number, None where there is none: only then does the
    graph hold for every image.
    """

    ops: list[Op] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    shapes: list[torch.Size] = field(default_factory=list)
    consumers: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    producers: dict[int, int] = field(default_factory=dict)
    branches: str | None = None

    def calls_of(self, path: str) -> list[Call]:
        return [call for call in self.calls if call.path == path]

    def runs_once(self, path: str) -> bool:
        return len(self.calls_of(path)) == 1

    def shape(self, value: int) -> torch.Size:
        return self.shapes[value]

    def owner(self, op: int) -> str:
        """Return the path of the innermost module that ran the function."""
        return [call.path for call in self.calls if call.covers(op)][-1]

    def names(self, call: Call) -> list[str]:
        return [op.name for op in self.ops[call.start : call.stop]]


class _Recorder(TorchFunctionMode):
    """Fills a trace while it is active."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.trace = Trace()
        self.stack: list[Call] = []
        self._numbers: dict[int, int] = {}
        # An id is that of one tensor as long as the tensor lives.
        self._alive: list[Tensor] = []
        self._new(image)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = self._known((args, kwargs))
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if inputs:
            if name in CONVERSIONS and self.trace.branches is None:
                self.trace.branches = self.stack[-1].path if self.stack else ""
            if any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)) and name != "__get__":
                plain = tuple(value for value in (*args, *kwargs.values()) if not isinstance(value, Tensor))
                self._add(name, inputs, out, plain)
        return out

    def enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = self._known((args, kwargs))
        call = Call(path, inputs, len(self.trace.ops), unary=len(inputs) == len(args) == 1 and not kwargs)
        self.trace.calls.append(call)
        self.stack.append(call)

    def leave(self, out: Any) -> None:
        call = self.stack.pop()
        if call.inputs and not self._known(out):
            # Functions that do not report themselves (scripted ones, autograd functions).
            self._add("unknown", call.inputs, out, ())
        call.outputs, call.stop = self._known(out), len(self.trace.ops)

    def _known(self, tree: Any) -> tuple[int, ...]:
        leaves = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
        return tuple(self._numbers[id(leaf)] for leaf in leaves if id(leaf) in self._numbers)

    def _new(self, tensor: Tensor) -> int:
        number = len(self.trace.shapes)
        self._numbers[id(tensor)] = number
        self._alive.append(tensor)
        self.trace.shapes.append(tensor.shape)
        return number

    def _add(self, name: str, inputs: tuple[int, ...], out: Any, arguments: tuple[Any, ...]) -> None:
        index = len(self.trace.ops)
        outputs = tuple(self._new(leaf) for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        self.trace.ops.append(Op(name, inputs, outputs, arguments))
        for value in dict.fromkeys(inputs):
            self.trace.consumers[value].append(index)
        self.trace.producers.update(dict.fromkeys(outputs, index))


def trace(module: nn.Module, in_shape: tuple[int, int, int]) -> Trace:
    """Return the trace of one image (c, h, w) of noise in eval mode; the module's mode is restored.

    Raises UsageError for a shape that the network does not take.
    """
    parameter = next(module.parameters(), torch.zeros(()))
    image = torch.randn(1, *in_shape, generator=torch.Generator().manual_seed(0))
    image = image.to(parameter.device, parameter.dtype)
    recorder = _Recorder(image)
    modes = {part: part.training for part in module.modules()}
    try:
        with _hooks(module, recorder), torch.no_grad(), recorder:
            module.eval()(image)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        reason = str(error) or type(error).__name__
        raise UsageError(f"the model does not take images of {tuple(in_shape)}: {reason}") from error
    finally:
        for part, training in modes.items():
            part.training = training
    return recorder.trace


@contextmanager
def _hooks(module: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Report every call of a module to the recorder."""

    def entering(path: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        return lambda _, args, kwargs: recorder.enter(path, args, kwargs)

    def leaving(_: nn.Module, __: tuple[Any, ...], out: Any) -> None:
        recorder.leave(out)

    with ExitStack() as hooks:
        for path, part in module.named_modules():
            hooks.enter_context(part.register_forward_pre_hook(entering(path), with_kwargs=True))
            hooks.enter_context(part.register_forward_hook(leaving))
        yield
