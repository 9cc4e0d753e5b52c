"""Time the exact shift measures against brute force over all positions and shifts.

python benchmarks/perf/shift.py [--canvas 224] [--images 16] [--device DEVICE] [--json FILE]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from timing import Column, environment_line, parse, parser, positive, print_header, print_row, store
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.engine import Normalize
from poolbench.measures import shift
from poolbench.measures.classification import predictions
from poolbench.runner.environment import environment

HALF_SIZE = 6
TABLE = (
    Column("measure", -26),
    Column("ms", 10, ".1f"),
    Column("passes", 8),
    Column("all ms", 11, ".1f"),
    Column("passes", 8),
    Column("faster", 9, ".1f"),
    Column("fewer", 8, ".1f"),
    Column("difference", 12, ".1e"),
    Column("in passes", 11, ".0%"),
)


@dataclass(frozen=True)
class Comparison:
    """One measure computed in two ways on the same network and inputs: seconds, passes (images), largest difference.

    ``forward_share`` is the share of the fast way's time that is spent in forward passes.
    """

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


class Counted(nn.Module):
    """A network with counters: images passed and seconds spent in forward passes."""

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
    """Compare the canvas map of the published network with one pooling layer with one pass per position."""
    torch.manual_seed(0)
    network = create_model("shape_net", (1, canvas, canvas), 2, "max", "avg", num_pooling=1)
    model = Counted(nn.Sequential(Normalize((0.5,), (1 / 255,)), network)).to(device).eval()
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
    """Compare the exact consistency of resnet20 on 32x32 images with all 1024 circular shifts."""
    torch.manual_seed(0)
    network = create_model("resnet20", (3, 32, 32), 10, "decimate", "avg", "circular").to(device).eval()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(images, 3, 32, 32, generator=generator).to(device)
    # An untrained network predicts one class for everything. Subtracting its mean logits makes shifts change decisions.
    with torch.no_grad():
        linear = network.get_submodule("classifier.linear")
        assert isinstance(linear, nn.Linear)
        linear.bias.sub_(network(pixels).mean(dim=0))
        labels = predictions(network(pixels))
    model = Counted(network)

    def exact() -> Tensor:
        found = shift.exact_consistency(model, pixels, labels, shift.total_stride(model, pixels[0]))
        return torch.tensor([found.consistency, found.mean_accuracy, found.worst_accuracy])

    def every() -> Tensor:
        logits = shift.shifted_logits(model, pixels, range(32), range(32))
        found = shift.consistency_of(predictions(logits).flatten(0, 1), labels)
        return torch.tensor([found.consistency, found.mean_accuracy, found.worst_accuracy])

    return _compare("consistency of resnet20", model, exact, every, repeats)


def _compare(
    measure: str, model: Counted, fast: Callable[[], Tensor], slow: Callable[[], Tensor], repeats: int
) -> Comparison:
    """Run the fast way ``repeats`` times after one warm-up and keep the best; run the slow way once."""

    def run(way: Callable[[], Tensor]) -> tuple[float, float, int, Tensor]:
        model.passes, model.seconds = 0, 0.0
        began = time.perf_counter()
        answer = way()
        return time.perf_counter() - began, model.seconds, model.passes, answer

    fast()
    best = min((run(fast) for _ in range(repeats)), key=lambda run: run[0])
    full = run(slow)
    difference = float((best[3] - full[3]).abs().max())
    return Comparison(measure, best[0], best[2], full[0], full[2], difference, best[1] / best[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table: the map and the consistency."""
    options = parser(__doc__)
    options.add_argument("--canvas", type=positive, default=224, help="side of the map in pixels (default: 224)")
    options.add_argument("--images", type=positive, default=16, help="images for the consistency (default: 16)")
    parsed = parse(options, arguments)
    print(environment_line(environment(parsed.device)))
    print_header(TABLE)
    rows = []
    for compare in (
        partial(bench_map, parsed.device, parsed.canvas),
        partial(bench_consistency, parsed.device, parsed.images),
    ):
        row = compare()
        slow = (1e3 * row.slow_seconds, row.slow_passes, row.times, row.fewer_passes)
        print_row(TABLE, (row.measure, 1e3 * row.seconds, row.passes, *slow, row.difference, row.forward_share))
        rows.append(row.as_row())
    store(parsed.json, parsed.device, {"shift": rows})


if __name__ == "__main__":
    main()
