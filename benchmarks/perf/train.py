"""Time training: the engine against a tutorial's loop on the CPU; replicas and resnet18 on a GPU.

python benchmarks/perf/train.py [--device DEVICE] [--json FILE]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from timing import Column, environment_line, parse, parser, print_header, print_row, seconds, store
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.functional import to_tensor

from poolbench.architectures import create_model
from poolbench.core import TrainConfig
from poolbench.data import Dataset, Split, images_dataset, to_pixels
from poolbench.engine import evaluate, initialise
from poolbench.engine.loop import Training
from poolbench.engine.networks import Networks, OneNetwork
from poolbench.engine.process import keep_freed_memory
from poolbench.engine.replicas import Stack
from poolbench.runner.environment import environment

ARTICLE = TrainConfig(epochs=1, batch_size=64, learning_rate=3e-4, shuffle=False)
FASHION_MNIST = (60_000, 1, 28, 28)
REPLICAS = (1, 4, 16, 64)
NETWORKS = {"fashion_convnet": "avg", "simple_conv": "flatten"}  # with their published heads
PEAKS = {"A100": 312e12, "H100 80GB HBM3": 989e12, "H200": 989e12}
"""Dense bfloat16 operations per second by a part of the device's name (vendor's data sheets, SXM boards)."""
EPOCH_TABLE = (
    Column("part", -16),
    Column("article s", 11, ".2f"),
    Column("engine s", 11, ".2f"),
    Column("ratio", 7, ".2f"),
)
REPLICA_TABLE = (
    Column("network", -18),
    Column("replicas", 9),
    Column("s per replica-epoch", 21, ".4f"),
    Column("times cheaper", 15, ".1f"),
)


@dataclass(frozen=True)
class EpochTime:
    """Seconds of one part of an epoch, by the article's loop and by the engine."""

    part: str
    article: float
    engine: float

    @property
    def ratio(self) -> float:
        return self.article / self.engine


@dataclass(frozen=True)
class ReplicaTime:
    """Seconds per replica and epoch with ``replicas`` stacked; ``ratio`` is how many times cheaper than one alone."""

    network: str
    replicas: int
    seconds: float
    ratio: float


@dataclass(frozen=True)
class Throughput:
    """Training images per second: the engine in bfloat16 (``engine``) and a plain float32 loop (``plain``).

    ``compiled`` is the engine with torch.compile and CUDA graphs, None if that was not tried. ``tflops``
    counts the engine's multiplications and additions in convolutions and matrix products, including those
    whose results the pool drops. ``share`` is the share of the device's bfloat16 peak, None if the peak is
    unknown.
    """

    network: str
    engine: float
    plain: float
    compiled: float | None
    tflops: float
    share: float | None

    @property
    def ratio(self) -> float:
        return self.engine / self.plain


def random_dataset(shape: tuple[int, int, int, int], device: str) -> Dataset:
    """Return a data set of random training images (n, c, h, w) in ten classes, with one test image."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, shape[:1], generator=generator)
    train = Split(images, labels).to(device)
    test = Split(images[:1], labels[:1]).to(device)
    return images_dataset("random", tuple("0123456789"), train, test, "random numbers")


def build(architecture: str, head: str, data: Dataset, pool: str = "max", seed: int = 0) -> nn.Module:
    """Return an initialised network on the data set's device that takes pixels in [0, 1]."""
    model = create_model(architecture, data.in_shape, len(data.classes), pool, head)
    initialise(model, seed)
    return model.to(data.test.images.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class ArticleImages(TorchDataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets return them: one at a time, through a PIL image."""

    def __init__(self, split: Split) -> None:
        self.images, self.labels = split.images[:, 0].numpy(), split.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_tensor(Image.fromarray(self.images[index])), int(self.labels[index])


def article_epoch(model: nn.Module, loader: DataLoader[tuple[Tensor, int]], rate: float) -> float:
    """Train one epoch as the article's notebook does, with ``loss.item()`` in every step; return the mean loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    total, count = 0.0, 0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        count += len(labels)
    return total / count


def article_accuracy(model: nn.Module, loader: DataLoader[tuple[Tensor, int]]) -> float:
    """Return the accuracy over all images of the loader."""
    model.eval()
    correct, count = 0, 0
    with torch.no_grad():
        for images, labels in loader:
            correct += int((model(images).argmax(1) == labels).sum().item())
            count += len(labels)
    return correct / count


def bench_epoch(shape: tuple[int, int, int, int] = FASHION_MNIST, repeats: int = 2) -> list[EpochTime]:
    """Return the times of the global_pooling network on the CPU: training, accuracy pass, and both.

    Both sides do the same work from the same weights: one epoch over all training images (n, 1, h, w) in
    order, in batches of 64 with Adam, then the accuracy of the new weights on all of them. The fastest of
    ``repeats`` counts.
    """
    data = random_dataset(shape, "cpu")
    assert isinstance(data.train, Split)
    start = build("fashion_convnet", "avg", data)
    loader = DataLoader(ArticleImages(data.train), ARTICLE.batch_size)
    # The article runs first: the engine changes settings of the process that would also speed up the article.
    times: dict[str, list[float]] = {}
    for _ in range(repeats):
        plain = deepcopy(start).to(memory_format=torch.contiguous_format)
        times.setdefault("article training", []).append(
            seconds(partial(article_epoch, plain, loader, ARTICLE.learning_rate))
        )
        times.setdefault("article pass", []).append(seconds(partial(article_accuracy, plain, loader)))
    keep_freed_memory()
    for _ in range(repeats):
        model = deepcopy(start)
        training = Training(OneNetwork(model), data, ARTICLE, [0])
        times.setdefault("engine training", []).append(seconds(training.run_epoch))
        times.setdefault("engine pass", []).append(seconds(partial(evaluate, model, data.train)))
    best = {name: min(values) for name, values in times.items()}
    both = [best[f"{side} training"] + best[f"{side} pass"] for side in ("article", "engine")]
    return [
        EpochTime("training", best["article training"], best["engine training"]),
        EpochTime("accuracy pass", best["article pass"], best["engine pass"]),
        EpochTime("both", both[0], both[1]),
    ]


def bench_replicas(
    device: str, shape: tuple[int, int, int, int] = (20_000, 1, 28, 28), counts: tuple[int, ...] = REPLICAS
) -> Iterator[ReplicaTime]:
    """Yield the time per replica and epoch, batch 64, for each network and number of replicas that fits in memory."""
    data = random_dataset(shape, device)
    config = replace(ARTICLE, epochs=2, shuffle=True)
    for architecture, head in NETWORKS.items():
        alone = _epoch_seconds(OneNetwork(build(architecture, head, data)), data, config, 1)
        for count in counts:
            try:
                stack = Stack([build(architecture, head, data, seed=seed) for seed in range(count)])
                spent = _epoch_seconds(stack, data, config, count) / count
            except torch.OutOfMemoryError:
                break
            yield ReplicaTime(architecture, count, spent, alone / spent)


def bench_throughput(
    device: str, shape: tuple[int, int, int, int] = (25_600, 3, 32, 32), batch_size: int = 512, compiled: bool = False
) -> Throughput:
    """Return how fast resnet18 trains on images (n, c, h, w): the engine in bfloat16, a plain loop in float32.

    Both have the images on the device. The plain loop uses contiguous tensors in torch's default precision
    and calls ``loss.item()`` in every step. ``compiled`` also times the engine with the compiled network.
    """
    data = random_dataset(shape, device)
    assert isinstance(data.train, Split)
    config = TrainConfig(epochs=2, batch_size=batch_size, optimizer="sgd", precision="bfloat16")
    model = build("resnet18", "avg", data, "decimate")
    flops = _training_flops(model, to_pixels(data.train.images[:8])) / 8
    engine = shape[0] / _epoch_seconds(OneNetwork(model), data, config, 1)
    plain_model = build("resnet18", "avg", data, "decimate").to(memory_format=torch.contiguous_format)
    plain = shape[0] / _plain_epoch_seconds(plain_model, data.train, config)
    quickest = None
    if compiled:
        network = OneNetwork(build("resnet18", "avg", data, "decimate"))
        network.model.compile(mode="reduce-overhead")
        quickest = shape[0] / _epoch_seconds(network, data, config, 1)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    peak = bf16_peak(name)
    return Throughput("resnet18", engine, plain, quickest, engine * flops / 1e12, peak and engine * flops / peak)


def bf16_peak(name: str) -> float | None:
    """Return the dense bfloat16 operations per second of a device by its name, None if unknown."""
    # NVL boards have lower clocks than the SXM boards of the same name.
    return next((peak for part, peak in PEAKS.items() if part in name and "NVL" not in name), None)


def _epoch_seconds(networks: Networks, data: Dataset, config: TrainConfig, seeds: int) -> float:
    """Return the seconds of the second epoch; the first is a warm-up."""
    training = Training(networks, data, config, range(seeds))
    training.run_epoch()
    return seconds(training.run_epoch)


def _plain_epoch_seconds(model: nn.Module, split: Split, config: TrainConfig) -> float:
    """Return the seconds of the second epoch of a plain SGD loop."""
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate, momentum=0.9, nesterov=True)

    def epoch() -> None:
        model.train()
        for images, labels in zip(
            split.images.split(config.batch_size), split.labels.split(config.batch_size), strict=True
        ):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images.float() / 255), labels)
            loss.backward()
            optimizer.step()
            loss.item()

    epoch()
    return seconds(epoch)


def _training_flops(model: nn.Module, pixels: Tensor) -> int:
    """Return the floating-point operations of a forward and a backward pass; a multiply-add counts as two."""
    model = deepcopy(model).train()
    with FlopCounterMode(display=False) as counter:
        model(pixels).sum().backward()
    return int(counter.get_total_flops())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of the epoch on the CPU and, on a GPU, one of the replicas and a line about resnet18."""
    parsed = parse(parser(__doc__), arguments)
    figures: dict[str, Any] = {"epoch": _print_epoch(), "replicas": [], "resnet18": None}
    if parsed.device.startswith("cuda"):
        figures["replicas"] = _print_replicas(parsed.device)
        figures["resnet18"] = _print_throughput(parsed.device)
    else:
        print("\nreplicas and resnet18: skipped, they need a CUDA device")
    store(parsed.json, parsed.device, figures)


def _print_epoch() -> list[dict[str, Any]]:
    print(environment_line(environment("cpu")))
    print(f"\nglobal_pooling network, an epoch of {FASHION_MNIST[0]} images, batch 64, on the CPU")
    print_header(EPOCH_TABLE)
    rows = []
    for part in bench_epoch():
        print_row(EPOCH_TABLE, (part.part, part.article, part.engine, part.ratio))
        rows.append({**asdict(part), "ratio": part.ratio})
    return rows


def _print_replicas(device: str) -> list[dict[str, Any]]:
    print(f"\n{environment(device)['device_name']}: stacked replicas against one network after another")
    print_header(REPLICA_TABLE)
    rows = []
    for row in bench_replicas(device):
        print_row(REPLICA_TABLE, (row.network, row.replicas, row.seconds, row.ratio))
        rows.append(asdict(row))
    return rows


def _print_throughput(device: str) -> dict[str, Any]:
    speed = bench_throughput(device, compiled=True)
    share = "peak of this device unknown" if speed.share is None else f"{speed.share:.1%} of the bfloat16 peak"
    print(
        f"\n{speed.network}, 3x32x32, batch 512: {speed.engine:.0f} images/s in bfloat16, "
        f"{speed.plain:.0f} in a plain float32 loop ({speed.ratio:.1f} times), {speed.compiled:.0f} compiled; "
        f"{speed.tflops:.1f} TFLOP/s, {share}"
    )
    return {**asdict(speed), "ratio": speed.ratio}


if __name__ == "__main__":
    main()
