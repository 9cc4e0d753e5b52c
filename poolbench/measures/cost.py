"""Cost of a network or an operator: parameters, operations, time and memory."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Cost of one batch on one device.

    ``parameters``: number of values in all parameters. ``flops``: floating-point operations of a forward pass in
    convolutions and matrix products, by torch's counter (a multiply-add counts as two; window maxima and
    sums count as zero). ``forward_ms`` and ``train_ms`` (forward and backward): medians in milliseconds.
    ``peak_mb``: peak memory of forward and backward beyond parameters and input, in 10^6 bytes; on a CPU
    only tensors count, not the scratch memory of kernels.
    """

    parameters: int
    flops: int
    forward_ms: float
    train_ms: float
    peak_mb: float

    def as_metrics(self) -> dict[str, float]:
        """Return {metric name: value}, for the metrics of :data:`poolbench.core.COST_METRICS`."""
        return {f"cost_{name}": float(value) for name, value in asdict(self).items()}


def measure_cost(module: nn.Module, x: Tensor, repeats: int = 10) -> Cost:
    """Return the cost of a module for a batch x (b, c, h, w), on the device of both.

    The forward pass is timed in eval mode without gradients, forward and backward in training mode. Times
    are medians over ``repeats`` passes after two warm-up passes; on a GPU they are measured with CUDA
    events. Mode, buffers and gradients of the module are restored.
    """
    training, state = module.training, {name: value.clone() for name, value in module.named_buffers()}
    gradients = [p.grad for p in module.parameters()]

    def forward() -> None:
        with torch.no_grad():
            module(x)

    def train() -> None:
        module.zero_grad(set_to_none=True)
        source.grad = None
        out: Tensor = module(source)
        out.sum().backward()

    # The input needs a gradient, as that of every layer but a network's first does.
    source = x.detach().clone().requires_grad_()
    try:
        module.eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(x)
        forward_ms = median(_times_ms(forward, x.device, repeats))
        module.train()
        train_ms = median(_times_ms(train, x.device, repeats))
        peak = _peak_bytes(train, module, source)
    finally:
        module.train(training)
        with torch.no_grad():
            for name, value in module.named_buffers():
                value.copy_(state[name])
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter.grad = gradient
    return Cost(
        parameters=sum(p.numel() for p in module.parameters()),
        flops=counter.get_total_flops(),
        forward_ms=forward_ms,
        train_ms=train_ms,
        peak_mb=peak / 1e6,
    )


@dataclass(frozen=True)
class InferenceCost:
    """Cost of forward passes of one batch of ``images`` on one device.

    ``times_ms``: milliseconds of each timed pass. ``flops`` and ``parameters`` as in :class:`Cost`. ``peak_mb``: peak
    memory of a pass beyond parameters and input, in 10^6 bytes.
    """

    images: int
    parameters: int
    flops: int
    times_ms: Sequence[float]
    peak_mb: float


def measure_inference(module: nn.Module, x: Tensor, repeats: int = 20) -> InferenceCost:
    """Return the cost of forward passes in eval mode for a batch x (b, c, h, w), timed after two warm-up passes."""
    module.eval()

    def forward() -> None:
        with torch.no_grad():
            module(x)

    with FlopCounterMode(display=False) as counter:
        forward()
    times = _times_ms(forward, x.device, repeats)
    peak = _peak_bytes(forward, module, x) / 1e6
    return InferenceCost(len(x), sum(p.numel() for p in module.parameters()), counter.get_total_flops(), times, peak)


def _times_ms(work: Callable[[], None], device: torch.device, repeats: int) -> list[float]:
    """Return the milliseconds of each of ``repeats`` runs of ``work``, after two warm-up runs."""
    for _ in range(2):
        work()
    if device.type != "cuda":
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            times.append((time.perf_counter() - began) * 1e3)
        return times
    with torch.cuda.device(device):
        return _event_times_ms(work, device, repeats)


def _event_times_ms(work: Callable[[], None], device: torch.device, repeats: int) -> list[float]:
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, end in pairs:
        start.record()
        work()
        end.record()
    torch.cuda.synchronize(device)
    return [float(start.elapsed_time(end)) for start, end in pairs]


def _peak_bytes(work: Callable[[], None], module: nn.Module, source: Tensor) -> int:
    """Return the peak memory of a second run of ``work``, in bytes beyond what was allocated before it."""
    device = source.device
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        peak: int = torch.cuda.max_memory_allocated(device) - before
        return peak
    # The CPU allocator records no peak, so count tensors.
    live = _LiveTensors(module, source)
    with live:
        work()
    return live.peak


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of live tensors that are created while it is active: now (``held``) and at most (``peak``)."""

    def __init__(self, module: nn.Module, source: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self._known = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers(), source)}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size
