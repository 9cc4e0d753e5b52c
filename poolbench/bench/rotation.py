"""What the rotation measure costs beside the forward passes that it cannot do without."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

BARE = "bare forward passes of the turned images"
FULL = "TV, SV, V, stratified, three aggregations"
OTHER = "tmeasures, V of positions alone"


@dataclass(frozen=True)
class RotationCost:
    """The time of one way of measuring; ``ratio`` is relative to the bare forward passes of the same run."""

    what: str
    images: int
    angles: int
    seconds: float
    ratio: float

    def as_row(self) -> dict[str, Any]:
        """Return the numbers as plain JSON types."""
        return asdict(self)


def bench_rotation(device: str, images: int = 1000, angles: int = 16, repeats: int = 3) -> list[RotationCost]:
    """Return the times for simple_conv at the paper's widths on images of mnist_sample, random weights.

    Bare: turn, mask and forward the same chunks of images as the measure, no hooks. All ways take turns,
    ``repeats`` times; the fastest counts.
    tmeasures is last, where it is installed, on images that are turned already and on the same layers. Freed
    memory is kept, as in a cell; more than the sample's 1,000 images are the same ones again.
    """
    import torch

    from poolbench.architectures import create_model
    from poolbench.core import DataLocation
    from poolbench.data import load_dataset
    from poolbench.engine.allocator import keep_freed_memory
    from poolbench.engine.fit import to_pixels
    from poolbench.measures.rotation import activation_variance
    from poolbench.measures.rotation.inputs import images_per_pass, rotated_images

    torch.set_flush_denormal(True)
    keep_freed_memory()
    test = load_dataset("mnist_sample", DataLocation(""), device).test
    # The sample is sorted by class, a part of it must not be.
    chosen = torch.arange(images, device=device) * len(test) // images
    pixels, labels = to_pixels(test.images[chosen]), test.labels[chosen]
    model = create_model("simple_conv", (1, 28, 28), 10, "max", "flatten", width=32, hidden=64).eval()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    turns = [360 * step / angles for step in range(angles)]
    chunk = images_per_pass(model, pixels, turns)
    members = [(labels == label).nonzero().flatten() for label in labels.unique()]

    def bare() -> None:
        with torch.no_grad():
            for own in members:
                for part in own.split(chunk):
                    model(rotated_images(pixels[part], turns, "disc", "zeros"))

    def full() -> None:
        activation_variance(model, pixels, turns, labels)

    ways: dict[str, Callable[[], None]] = {BARE: bare, FULL: full}
    if other := _tmeasures(model, pixels, turns):
        ways[OTHER] = other
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for what, way in ways.items():
            began = time.perf_counter()
            way()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            seconds[what] = min(seconds[what], time.perf_counter() - began)
    return [RotationCost(what, images, angles, own, own / seconds[BARE]) for what, own in seconds.items()]


def _tmeasures(model: nn.Module, pixels: Tensor, turns: Sequence[float]) -> Callable[[], None] | None:
    """Return its normalised variance of every position of the same layers, None where it is not installed."""
    import torch

    from poolbench.measures.rotation import recorded_layers
    from poolbench.measures.rotation.inputs import rotated_images
    from poolbench.measures.rotation.layers import recorded_outputs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import tmeasures.pytorch as library
        except ImportError:
            return None
    images = torch.stack([rotated_images(pixels, [turn], "disc", "zeros") for turn in turns]).cpu()

    class Places(torch.utils.data.Dataset[Any]):
        """The place of an image in place of the image."""

        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, place: int) -> Any:
            return torch.full((1,), place)

    def looked_up(turn: int) -> Callable[[Any], Any]:
        return lambda place: images[turn, int(place)]

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
            library.NormalizedVarianceInvariance().eval(Places(), transformations, Activations(), options)

    return measure
