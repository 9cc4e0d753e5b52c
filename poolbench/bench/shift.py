"""What exactness costs: the periodic canvas map and the exact consistency beside the ways that try everything."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.engine import Normalize
from poolbench.measures import shift
from poolbench.measures.classification import predictions

HALF_SIZE = 6


@dataclass(frozen=True)
class Comparison:
    """A measure done in two ways on the same network and inputs: seconds, passes (images), largest difference."""

    measure: str
    seconds: float
    passes: int
    slow_seconds: float
    slow_passes: int
    difference: float
    forward_share: float

    @property
    def times(self) -> float:
        return self.slow_seconds / self.seconds

    @property
    def fewer_passes(self) -> float:
        return self.slow_passes / self.passes

    def as_row(self) -> dict[str, Any]:
        """Return the numbers as plain JSON types."""
        return {**asdict(self), "times": self.times, "fewer_passes": self.fewer_passes}


class _Timed(nn.Module):
    """Counts the images that pass through a network and the seconds that they take."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes, self.seconds = model, 0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        began = time.perf_counter()
        outputs: Tensor = self.model(x)
        if x.is_cuda:
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - began
        self.passes += len(x)
        return outputs


def bench_map(device: str, canvas: int, repeats: int = 3) -> Comparison:
    """Time the map of the published network with one pooling layer against a loop of one pass per position."""
    torch.manual_seed(0)
    network = create_model("shape_net", (1, canvas, canvas), 2, "max", "avg", num_pooling=1)
    model = _Timed(nn.Sequential(Normalize((0.5,), (1 / 255,)), network)).to(device).eval()
    black = torch.zeros(1, canvas, canvas, device=device)
    stamp = torch.ones(1, 2 * HALF_SIZE + 1, 2 * HALF_SIZE + 1, device=device)

    def loop() -> Tensor:
        answers = torch.empty(canvas, canvas, 1, device=device)
        for y in range(canvas):
            for x in range(canvas):
                image = black.clone()
                image[:, max(0, y - HALF_SIZE) : y + HALF_SIZE + 1, max(0, x - HALF_SIZE) : x + HALF_SIZE + 1] = 1
                with torch.no_grad():
                    answers[y, x] = model(image[None])[0]
        return answers

    return _compare(f"map {canvas}x{canvas}", model, lambda: shift.canvas_map(model, stamp, black), loop, repeats)


def bench_consistency(device: str, images: int, repeats: int = 3) -> Comparison:
    """Time the exact consistency of resnet20 on 32x32 images against all 1024 circular shifts."""
    torch.manual_seed(0)
    network = create_model("resnet20", (3, 32, 32), 10, "decimate", "avg", "circular").to(device).eval()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(images, 3, 32, 32, generator=generator).to(device)
    # An untrained network decides for one class; with its mean answer taken off, shifts change decisions.
    with torch.no_grad():
        linear = network.get_submodule("classifier.linear")
        assert isinstance(linear, nn.Linear)
        linear.bias.sub_(network(pixels).mean(dim=0))
    model = _Timed(network)
    labels = predictions(shift.outputs(network, pixels))

    def exact() -> Tensor:
        found = shift.exact_consistency(model, pixels, labels, shift.total_stride(model, pixels[0]))
        return torch.tensor([found.consistency, found.mean_accuracy, found.worst_accuracy])

    def every() -> Tensor:
        logits = shift.shifted_logits(model, pixels, range(32), range(32))
        found = shift.consistency_of(predictions(logits).flatten(0, 1), labels)
        return torch.tensor([found.consistency, found.mean_accuracy, found.worst_accuracy])

    return _compare("consistency of resnet20", model, exact, every, repeats)


def _compare(
    measure: str, model: _Timed, fast: Callable[[], Tensor], slow: Callable[[], Tensor], repeats: int
) -> Comparison:
    """Run the fast way ``repeats`` times and keep the best, the slow way once."""
    best: tuple[float, float, int] | None = None
    answer = fast()
    for _ in range(repeats):
        model.passes, model.seconds = 0, 0.0
        began = time.perf_counter()
        answer = fast()
        own = time.perf_counter() - began, model.seconds, model.passes
        best = min(best, own) if best else own
    assert best is not None
    model.passes = 0
    began = time.perf_counter()
    expected = slow()
    slow_seconds = time.perf_counter() - began
    difference = float((answer - expected).abs().max())
    return Comparison(measure, best[0], best[2], slow_seconds, model.passes, difference, best[1] / best[0])
