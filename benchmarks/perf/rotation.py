"""Time the rotation measure, relative to its bare forward passes and beside tmeasures if it is installed.

python benchmarks/perf/rotation.py [--images 1000] [--angles 16] [--repeats 3] [--device DEVICE] [--json FILE]
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from timing import Column, environment_line, parse, parser, positive, print_header, print_row, seconds, store
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.core import DataLocation
from poolbench.data import load_dataset, to_pixels
from poolbench.engine.process import keep_freed_memory
from poolbench.measures.rotation import activation_variance, recorded_layers
from poolbench.measures.rotation.inputs import images_per_pass, rotated_images
from poolbench.measures.rotation.layers import recorded_outputs
from poolbench.runner.environment import environment

BARE = "bare forward passes of the rotated images"
FULL = "TV, SV, V, stratified, three aggregations"
OTHER = "tmeasures, V of positions only"
TABLE = (Column("", -44), Column("seconds", 9, ".3f"), Column("ms per pass", 13, ".3f"), Column("x", 7, ".2f"))
Ways = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class RotationCost:
    """The time of one way of measuring; ``ratio`` is relative to the bare forward passes of the same run."""

    what: str
    images: int
    angles: int
    seconds: float
    ratio: float


def bench_rotation(device: str, images: int = 1000, angles: int = 16, repeats: int = 3) -> list[RotationCost]:
    """Return the times for simple_conv at the paper's widths on images of mnist_sample, with random weights.

    The ways alternate, ``repeats`` times; the fastest time counts. Freed memory is kept, as in a cell. Above
    1,000 images, those of the sample are repeated.
    """
    torch.set_flush_denormal(True)
    keep_freed_memory()
    test = load_dataset("mnist_sample", DataLocation(""), device).test
    # The sample is sorted by class, so take images at equal distances.
    chosen = torch.arange(images, device=device) * len(test) // images
    pixels, labels = to_pixels(test.images[chosen]), test.labels[chosen]
    model = create_model("simple_conv", (1, 28, 28), 10, "max", "flatten", width=32, hidden=64).eval()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    turns = [360 * step / angles for step in range(angles)]
    ways = _ways(model, pixels, labels, turns)
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for what, way in ways.items():
            best[what] = min(best[what], seconds(way))
    return [RotationCost(what, images, angles, spent, spent / best[BARE]) for what, spent in best.items()]


def _ways(model: nn.Module, pixels: Tensor, labels: Tensor, turns: Sequence[float]) -> Ways:
    """Return the ways to time, by name: bare passes, the measure, tmeasures if it is installed.

    Bare passes rotate, mask and forward the same chunks of images as the measure, without hooks. tmeasures gets
    images that are rotated already, and records the same layers.
    """
    chunk = images_per_pass(model, pixels, turns)
    members = [(labels == label).nonzero().flatten() for label in labels.unique()]

    def bare() -> None:
        with torch.no_grad():
            for indices in members:
                for part in indices.split(chunk):
                    model(rotated_images(pixels[part], turns, "disc", "zeros"))

    ways: Ways = {BARE: bare, FULL: lambda: activation_variance(model, pixels, turns, labels)}
    if other := _tmeasures(model, pixels, turns):
        ways[OTHER] = other
    return ways


def _tmeasures(model: nn.Module, pixels: Tensor, turns: Sequence[float]) -> Callable[[], None] | None:
    """Return its normalised variance of every position of the same layers, None if it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import tmeasures.pytorch as library
        except ImportError:
            return None
    images = torch.stack([rotated_images(pixels, [turn], "disc", "zeros") for turn in turns]).cpu()

    class Indices(torch.utils.data.Dataset[Any]):
        """Indices of images; the transformations below look the images up."""

        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, index: int) -> Any:
            return torch.full((1,), index)

    def looked_up(turn: int) -> Callable[[Any], Any]:
        return lambda index: images[turn, int(index)]

    class Activations(library.ActivationsModule):  # type: ignore[misc]
        def activation_names(self) -> list[str]:
            return list(recorded_layers(model))

        def forward_activations(self, batch: Any) -> list[Any]:
            found: list[Any] = []
            with torch.no_grad(), recorded_outputs(model, lambda layer, output: found.append(output)):
                model(batch.to(pixels.device).contiguous(memory_format=torch.channels_last))
            return found

    options = library.PyTorchMeasureOptions(batch_size=64, verbose=False)

    def measure() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformations = [looked_up(turn) for turn in range(len(turns))]
            library.NormalizedVarianceInvariance().eval(Indices(), transformations, Activations(), options)

    return measure


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table."""
    options = parser(__doc__)
    options.add_argument("--images", type=positive, default=1000, help="images (default: 1000)")
    options.add_argument("--angles", type=positive, default=16, help="angles in a full turn (default: 16)")
    options.add_argument("--repeats", type=positive, default=3, help="runs of each; the fastest counts (default: 3)")
    parsed = parse(options, arguments)
    print(f"{environment_line(environment(parsed.device))}; x = relative to bare")
    print(f"simple_conv 32/64, {parsed.images} images, {parsed.angles} angles\n")
    rows = bench_rotation(parsed.device, parsed.images, parsed.angles, parsed.repeats)
    print_header(TABLE)
    for row in rows:
        print_row(TABLE, (row.what, row.seconds, 1000 * row.seconds / (row.images * row.angles), row.ratio))
    if all(row.what != OTHER for row in rows):
        print("tmeasures is not installed (pip install tmeasures statsmodels): left out", file=sys.stderr)
    store(parsed.json, parsed.device, {"rotation": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
