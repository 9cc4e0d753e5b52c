"""Class maps, the evidence for each class at each position, and what mean and maximum of these maps would decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poolbench.analysis.bootstrap import bootstrap_intervals
from poolbench.analysis.statistics import Interval
from poolbench.inspect.stages import Shape, is_map
from poolbench.inspect.taps import Tap, read
from poolbench.measures.classification import predictions
from poolbench.pooling.base import Head
from poolbench.registry import heads
from poolbench.surgery.trace import trace

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": lambda maps: maps.mean(dim=(-2, -1)),
    "max": lambda maps: maps.amax(dim=(-2, -1)),
    "avgmax": lambda maps: (maps.mean(dim=(-2, -1)) + maps.amax(dim=(-2, -1))) / 2,
}
LAST = 6
"""So many of the last tensors of a network are tried as the maps that its head pools."""


@dataclass(frozen=True)
class ClassHead:
    """A head with class maps: ``pool`` of the maps at ``tap``, then the linear layer at ``linear``.

    Without a linear layer (None) the maps are those of the classes themselves.
    """

    tap: Tap
    pool: str
    linear: str | None


@dataclass(frozen=True)
class Answered:
    """Decisions over ``images`` images: the network's own, and those of the mean and the maximum of each class map.

    ``own``, ``by_mean`` and ``by_max`` are accuracies, ``mean_gain`` and ``max_gain`` their paired differences from
    ``own``; None without labels. ``same_mean`` and ``same_max`` are the shares of images with the network's decision.
    """

    images: int
    own: Interval | None
    by_mean: Interval | None
    by_max: Interval | None
    mean_gain: Interval | None
    max_gain: Interval | None
    same_mean: Interval
    same_max: Interval


def find_class_head(network: nn.Module, images: Tensor) -> ClassHead | None:
    """Return the head of a network with class maps, None for a head of another kind.

    The kinds are a global pool and a linear layer, whose class maps are those of Zhou et al. (2016), and class maps
    that are pooled. A head counts only if it gives the network's logits on images (b, c, h, w), and on noise.
    Raises UsageError for images that the network does not take.
    """
    in_shape = (images.shape[1], images.shape[2], images.shape[3])
    noise = torch.rand(2, *in_shape, generator=torch.Generator().manual_seed(0)).to(images)
    inputs = torch.cat([images[:2], noise])
    candidates, linear = _candidates(network, in_shape)
    pooled = [Tap(tap.path, tap.call) for tap, name in candidates if name]
    ends = [Tap(linear, 0, "input"), Tap(linear, 0)] if linear else []
    logits, found = read(network, inputs, [*(tap for tap, _ in candidates), *pooled, *ends])
    maps, outputs = found[: len(candidates)], iter(found[len(candidates) : len(candidates) + len(pooled)])
    feeds = found[-2].flatten(1) if ends and _equal(found[-1], logits) else None
    for (tap, name), values in zip(candidates, maps, strict=True):
        own = {name: next(outputs).flatten(1)} if name else {key: pool(values) for key, pool in POOLS.items()}
        for pool, features in own.items():
            if features.shape != values.shape[:2]:
                continue  # a head with several features per map
            if _equal(features, logits) or _equal(features.sigmoid(), logits):
                return ClassHead(tap, pool, None)
            if feeds is not None and _equal(features, feeds):
                return ClassHead(tap, pool, linear)
    return None


def _candidates(network: nn.Module, in_shape: Shape) -> tuple[list[tuple[Tap, str]], str | None]:
    """Return where the maps before the head may be read, the latest first, and the path of the last linear layer.

    Each place comes with the name of the head of this package that takes the maps there, or "".
    """
    graph = trace(network, in_shape)
    names = {heads.get(name): name for name in heads.names()}
    found: list[tuple[int, Tap, str]] = []
    for call in graph.calls:
        part, number = network.get_submodule(call.path), graph.calls_of(call.path).index(call)
        own = names.get(type(part), "") if isinstance(part, Head) else ""
        if not call.path or len(call.outputs) != 1:
            continue
        made = tuple(graph.shape(call.outputs[0]))
        if len(call.inputs) == 1 and is_map(tuple(graph.shape(call.inputs[0])), in_shape):
            pools_all = len(made) == 2 or made[2:] == (1, 1)
            if own or pools_all:
                found.append((call.stop, Tap(call.path, number, "input"), own))
        if is_map(made, in_shape):
            found.append((call.stop, Tap(call.path, number), ""))
    found.sort(key=lambda one: (bool(one[2]), one[0]), reverse=True)
    linear = [call.path for call in graph.calls if isinstance(network.get_submodule(call.path), nn.Linear)]
    single = linear[-1] if linear and graph.runs_once(linear[-1]) else None
    return [(tap, name) for _, tap, name in found[:LAST]], single


def _equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are equal up to rounding."""
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-4 * (1e-6 + b.abs().max()))


def class_maps(network: nn.Module, head: ClassHead, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (b, outputs) and class maps (b, outputs, h, w) of images (b, c, h, w).

    With a linear layer W, b the map of class k is the sum over channels of W_k times the channel's map, plus b_k
    (Zhou et al. 2016): for an average its mean is the logit.
    """
    logits, (maps,) = read(network, images, [head.tap])
    if head.linear is not None:
        linear = network.get_submodule(head.linear)
        assert isinstance(linear, nn.Linear)
        maps = torch.einsum("kc,bchw->bkhw", linear.weight.detach(), maps)
        if linear.bias is not None:
            maps = maps + linear.bias.detach()[:, None, None]
    return logits, maps


def answer(network: nn.Module, head: ClassHead, batches: Iterable[Tensor], labels: Tensor | None) -> Answered:
    """Return what the network, the means and the maxima of its class maps decide on batches of images (b, c, h, w).

    ``labels`` (n,) are those of all images. Intervals are 95 % over images, within classes.
    """
    decided = torch.cat(list(_decisions(network, head, batches)))
    strata = None if labels is None else labels.cpu().numpy()
    same = bootstrap_intervals((decided[:, 1:] == decided[:, :1]).double().numpy(), strata)
    if labels is None:
        return Answered(len(decided), None, None, None, None, None, *same)
    right = (decided == labels.cpu()[:, None]).double().numpy()
    accuracies = bootstrap_intervals(right, strata)
    gains = bootstrap_intervals(right[:, 1:] - right[:, :1], strata, share=False)
    return Answered(len(decided), *accuracies, *gains, *same)


def _decisions(network: nn.Module, head: ClassHead, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the decisions (b, 3) of each batch: own, by the mean, by the maximum of the class maps."""
    for batch in batches:
        logits, maps = class_maps(network, head, batch)
        yield torch.stack(
            [predictions(logits), predictions(POOLS["avg"](maps)), predictions(POOLS["max"](maps))], 1
        ).cpu()
