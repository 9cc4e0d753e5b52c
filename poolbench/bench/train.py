"""What training costs: the engine against the loop that tutorials write, replicas against one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Pictures
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.functional import to_tensor

from poolbench.core import Cell, TrainConfig
from poolbench.data import Dataset, Split, images_dataset
from poolbench.engine import build_model, evaluate
from poolbench.engine.allocator import keep_freed_memory
from poolbench.engine.fit import Networks, OneNetwork, Training, to_pixels
from poolbench.engine.replicas import Stack

ARTICLE = TrainConfig(epochs=1, batch_size=64, learning_rate=3e-4, shuffle=False)
FASHION_MNIST = (60_000, 1, 28, 28)
REPLICAS = (1, 4, 16, 64)
NETWORKS = {"fashion_convnet": "avg", "simple_conv": "flatten"}  # with their published heads
PEAKS = {"A100": 312e12, "H100 80GB HBM3": 989e12, "H200": 989e12}
"""Dense bfloat16 operations a second by a part of the device's name (vendor's data sheets, SXM boards)."""


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
    """Seconds per replica and epoch with so many stacked; ``ratio`` is how many times cheaper than one alone."""

    network: str
    replicas: int
    seconds: float
    ratio: float


@dataclass(frozen=True)
class Throughput:
    """Training images a second by the engine in bfloat16 and by a plain float32 loop.

    ``compiled`` is the engine's with the network through torch.compile and CUDA graphs, None where that was
    not tried. ``tflops`` counts the engine's multiplications and additions in convolutions and matrix
    products, also those whose results the pool drops; ``share`` is that of the device's bfloat16 peak, None
    where the peak is not known.
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
    """Return random training images (n, c, h, w) of ten classes, and as few test images as can be."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, shape[:1], generator=generator)
    train = Split(images, labels).to(device)
    test = Split(images[:1], labels[:1]).to(device)
    return images_dataset("random", tuple("0123456789"), train, test, "random numbers")


def network_cell(architecture: str, head: str, train: TrainConfig, seed: int = 0, pool: str = "max") -> Cell:
    """Return a cell for ``build_model``: a network on pixels as they are."""
    return Cell("bench", "random", architecture, pool, head, "default", seed, train, data={"normalize": "unit"})


class ArticlePictures(Pictures[tuple[Tensor, int]]):
    """Images as torchvision's data sets hand them out: one at a time, by way of a PIL image."""

    def __init__(self, split: Split) -> None:
        self.images, self.labels = split.images[:, 0].numpy(), split.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_tensor(Image.fromarray(self.images[index])), int(self.labels[index])


def article_epoch(model: nn.Module, loader: DataLoader[tuple[Tensor, int]], rate: float) -> float:
    """Train one epoch as the article's notebook does, asking for the loss in every step; return the mean loss."""
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
    """Return the accuracy over all images that the loader gives."""
    model.eval()
    correct, count = 0, 0
    with torch.no_grad():
        for images, labels in loader:
            correct += int((model(images).argmax(1) == labels).sum().item())
            count += len(labels)
    return correct / count


def bench_epoch(shape: tuple[int, int, int, int] = FASHION_MNIST, repeats: int = 2) -> list[EpochTime]:
    """Return the times of the global_pooling network on the CPU: training, accuracy pass, and both.

    Both sides do the same work from the same weights: every training image (n, 1, h, w) once in order, in
    batches of 64 with Adam, then the accuracy of the new weights over all of them. The least of ``repeats``.
    """
    data = random_dataset(shape, "cpu")
    assert isinstance(data.train, Split)
    start = build_model(network_cell("fashion_convnet", "avg", ARTICLE), data, "cpu")
    loader = DataLoader(ArticlePictures(data.train), ARTICLE.batch_size)
    # All of the article first: the engine sets the process up for itself, which would serve the other, too.
    times: dict[str, list[float]] = {}
    for _ in range(repeats):
        plain = deepcopy(start).to(memory_format=torch.contiguous_format)
        times.setdefault("article training", []).append(
            _seconds(partial(article_epoch, plain, loader, ARTICLE.learning_rate))
        )
        times.setdefault("article pass", []).append(_seconds(partial(article_accuracy, plain, loader)))
    keep_freed_memory()
    for _ in range(repeats):
        mine = deepcopy(start)
        training = Training(OneNetwork(mine), data, ARTICLE, [0])
        times.setdefault("engine training", []).append(_seconds(training.run_epoch))
        times.setdefault("engine pass", []).append(_seconds(partial(evaluate, mine, data.train)))
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
    """Yield the time per replica and epoch, batch 64, of each network and number of replicas that fits."""
    data = random_dataset(shape, device)
    config = replace(ARTICLE, epochs=2, shuffle=True)
    for architecture, head in NETWORKS.items():

        def build(seed: int, architecture: str = architecture, head: str = head) -> nn.Module:
            return build_model(network_cell(architecture, head, config, seed), data, device)

        alone = _epoch_seconds(OneNetwork(build(0)), data, config, 1)
        for count in counts:
            try:
                stack = Stack([build(seed) for seed in range(count)])
                seconds = _epoch_seconds(stack, data, config, count) / count
            except torch.OutOfMemoryError:
                break
            yield ReplicaTime(architecture, count, seconds, alone / seconds)


def bench_throughput(
    device: str, shape: tuple[int, int, int, int] = (25_600, 3, 32, 32), batch_size: int = 512, compiled: bool = False
) -> Throughput:
    """Return how fast resnet18 trains on images (n, c, h, w): the engine in bfloat16, a plain loop in float32.

    Both have the images on the device. The plain loop takes tensors as they come (contiguous), in torch's
    default precision, and asks for the loss in every step. ``compiled`` tries the engine with the compiled
    network as well: whether it pays decides whether the engine should do so.
    """
    data = random_dataset(shape, device)
    assert isinstance(data.train, Split)
    config = TrainConfig(epochs=2, batch_size=batch_size, optimizer="sgd", precision="bfloat16")
    cell = network_cell("resnet18", "avg", config, pool="decimate")
    model = build_model(cell, data, device)
    flops = _training_flops(model, to_pixels(data.train.images[:8])) / 8
    engine = shape[0] / _epoch_seconds(OneNetwork(model), data, config, 1)
    plain_model = build_model(cell, data, device).to(memory_format=torch.contiguous_format)
    plain = shape[0] / _plain_epoch_seconds(plain_model, data.train, config)
    quickest = None
    if compiled:
        network = OneNetwork(build_model(cell, data, device))
        network.model.compile(mode="reduce-overhead")
        quickest = shape[0] / _epoch_seconds(network, data, config, 1)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    peak = bf16_peak(name)
    return Throughput("resnet18", engine, plain, quickest, engine * flops / 1e12, peak and engine * flops / peak)


def bf16_peak(name: str) -> float | None:
    """Return the dense bfloat16 operations a second of a device by its name, None where they are not known."""
    # NVL boards clock lower than their SXM namesakes.
    return next((peak for part, peak in PEAKS.items() if part in name and "NVL" not in name), None)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _epoch_seconds(networks: Networks, data: Dataset, config: TrainConfig, seeds: int) -> float:
    """Seconds of the second epoch; the first one warms up."""
    training = Training(networks, data, config, range(seeds))
    training.run_epoch()
    return _seconds(training.run_epoch)


def _plain_epoch_seconds(model: nn.Module, split: Split, config: TrainConfig) -> float:
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
    return _seconds(epoch)


def _training_flops(model: nn.Module, pixels: Tensor) -> int:
    """Floating-point operations of a forward and a backward pass; a multiply-add is two."""
    model = deepcopy(model).train()
    with FlopCounterMode(display=False) as counter:
        model(pixels).sum().backward()
    return int(counter.get_total_flops())
