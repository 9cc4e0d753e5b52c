"""What local pools make of an activated map, and what is left of it when the photograph moves by one pixel.

A photograph goes through a bank of filters and a ReLU, then through each pool with stride 2: the filters are the
channels of one layer, so that a pool that chooses by all channels sees them all. The same is done after the photograph
has moved by ``STEP``. No pool of stride 2 can follow a step of one pixel by moving its output: the
measure is how much of the change no whole-pixel move of the output explains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import Component, UsageError
from poolbench.geometry import shift_subpixel
from poolbench.inspect.filters import FILTERS, Filter
from poolbench.inspect.photograph import grey
from poolbench.pooling import Pool, create_pool
from poolbench.pooling.padding import PaddingMode, pad
from poolbench.registry import pools as registered

STRIDE = 2
STEP = (1, 1)
"""How far the content of the photograph moves, down and to the right, in px."""
MARGIN = 8
"""Border of the map, in px, that is not compared after a step: new content enters there. The widest window of the
registered pools reaches 4 px, and the aligned map has moved by 2."""
OFFSETS = tuple((top, left) for top in (0, 3, 6) for left in (0, 3, 6))
"""Corners of the windows of a photograph, in px: a pool's change depends on where the window lies. An odd distance,
so that the windows have all phases of the stride."""
SHOWN = len(OFFSETS) // 2
"""The window that is drawn: the one in the middle."""
FLAT = 1e-9
"""Standard deviation below which a map counts as constant (brightness runs from 0 to 1)."""
WHOLE = tuple((down, right) for down in (0.0, 1.0) for right in (0.0, 1.0))
"""The moves of an output (down, right), in px of the output, that a step of the input can turn into."""
HALVES = tuple((down, right) for down in (0.0, 0.5, 1.0) for right in (0.0, 0.5, 1.0))
"""The same with half pixels: a step of 1 px is half a pixel of an output with stride 2."""


@dataclass(frozen=True)
class Change:
    """What moving the input changes in a pooled map, for n maps.

    ``size`` (n,) is the root mean square of ``difference`` (n, h, w): the map after the step minus the map before it,
    the latter moved by ``alignment`` (n, 2), divided by the standard deviation of the latter. Of the moves that were
    tried the alignment is the one with the smallest difference. 0: the map only moved. About 1.4: the maps have
    nothing in common but their mean and contrast. NaN for a constant map.
    """

    size: Tensor
    alignment: Tensor
    difference: Tensor

    def take(self, index: int) -> Change:
        """Return the change of one map (n = 1)."""
        chosen = slice(index, index + 1)
        return Change(self.size[chosen], self.alignment[chosen], self.difference[chosen])


@dataclass(frozen=True)
class Spread:
    """The mean, smallest and largest of the changes of one pool over the windows of a photograph."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True)
class PooledMap:
    """One pool on the map of one filter.

    ``weights`` is empty for a pool without learned weights, otherwise "initial" or "random". ``before`` and ``after``
    (h, w) are the pooled maps before and after the step. ``shown`` is what the step changed in them, without the
    border; ``shown_circular`` is what it changes on a torus, where no new content enters. The spreads are over all
    windows: ``change`` and ``circular`` for moves by whole pixels, ``halves`` on a torus if moves by half pixels are
    tried, too. ``contrast`` is the standard deviation of ``before`` over that of the activated map.
    """

    pool: str
    weights: str
    before: Tensor
    after: Tensor
    shown: Change
    shown_circular: Change
    change: Spread
    circular: Spread
    halves: Spread
    contrast: float


@dataclass(frozen=True)
class PoolInspection:
    """A grey photograph (h, w) and what filters and pools make of it.

    ``filtered`` and ``pooled`` are {filter: (h, w)}: the maps of the bank before the ReLU, and after it and 2x2 max
    pooling. ``maps`` are the pools in order of their change, all on the map of the filter ``chosen``; ``activated``
    (h, w) is that map after the ReLU, before the step, in the window that is shown.
    """

    photograph: Tensor
    filtered: Mapping[str, Tensor]
    pooled: Mapping[str, Tensor]
    chosen: Filter
    activated: Tensor
    maps: Sequence[PooledMap]


Pair = tuple[Tensor, Tensor]
"""The activated maps (c, h, w) of a window before and after the step."""


def inspect_pools(
    photograph: Tensor, pools: Sequence[Component], chosen: Filter, show: Callable[[int, int], None]
) -> PoolInspection:
    """Return what each pool makes of a photograph (3, h, w) in [0, 1] behind one filter of the bank and a ReLU.

    ``show(done, total)`` is called after each pool. Raises UsageError where the filter finds nothing.
    """
    brightness = grey(photograph.double())
    responses = filtered(brightness, FILTERS)
    index = FILTERS.index(chosen)
    pairs = [stepped(responses.relu(), offset) for offset in OFFSETS]
    tori = [_turned(circular_maps(window)) for window in _crops(brightness)]
    if any(not pair[0][index].std(correction=0) > FLAT for pair in pairs):
        raise UsageError(
            f"filter '{chosen.name}' finds nothing in this photograph: its map is constant; give another --filter or "
            "picture"
        )
    maps = []
    for done, pool in enumerate(pools, start=1):
        maps.append(_pooled(pool, pairs, tori, index))
        show(done, len(pools))
    # NaN, for a pool whose output is constant, would not sort.
    maps.sort(key=lambda one: (math.isnan(one.change.mean), one.change.mean))
    largest = _applied(initial_pool(registered.resolve("max")), responses.relu())
    return PoolInspection(brightness, _by_name(responses), _by_name(largest), chosen, pairs[SHOWN][0][index], maps)


def _by_name(maps: Tensor) -> dict[str, Tensor]:
    """Return {filter: (h, w)} of the maps (n, h, w) of the bank."""
    return {one.name: each for one, each in zip(FILTERS, maps, strict=True)}


def filtered(image: Tensor, filters: Sequence[Filter]) -> Tensor:
    """Return the responses (n, h - 2, w - 2) of n filters to an image (h, w), where the filter lies inside it."""
    weights = image.new_tensor([one.weights for one in filters])
    return F.conv2d(image[None, None], weights[:, None])[0]


def stepped(maps: Tensor, offset: tuple[int, int]) -> Pair:
    """Return two windows (n, h', w') of maps (n, h, w), ``offset`` px from the corner; ``STEP`` lies between them.

    The content of the second is ``STEP`` px further down and to the right. h' and w' are the same for all ``OFFSETS``.
    """
    height, width = _window_size(maps.shape[-2], maps.shape[-1])
    windows = []
    for step in (STEP, (0, 0)):
        top, left = (distance + more for distance, more in zip(offset, step, strict=True))
        windows.append(maps[:, top : top + height, left : left + width])
    return windows[0], windows[1]


def _crops(image: Tensor) -> list[Tensor]:
    """Return the windows (h', w') of an image (h, w) at all ``OFFSETS``."""
    height, width = _window_size(*image.shape)
    return [image[top : top + height, left : left + width] for top, left in OFFSETS]


def _window_size(height: int, width: int) -> tuple[int, int]:
    """Return the largest size that fits at all offsets, before and after the step, and that the stride divides."""
    furthest = max(max(offset) for offset in OFFSETS) + max(STEP)
    return (height - furthest) // STRIDE * STRIDE, (width - furthest) // STRIDE * STRIDE


def circular_maps(image: Tensor) -> Tensor:
    """Return the maps (n, h, w) of the bank for an image (h, w) as a torus, after the ReLU."""
    return filtered(pad(image[None, None], (1, 1, 1, 1), "circular")[0, 0], FILTERS).relu()


def _turned(maps: Tensor) -> Pair:
    return maps, maps.roll(STEP, (1, 2))


def change(before: Tensor, after: Tensor, margin: int = 0, moves: Sequence[tuple[float, float]] = WHOLE) -> Change:
    """Return how the maps ``after`` a step (n, h, w) differ from those ``before``, apart from one of the ``moves``.

    Maps are float64. ``margin`` rows and columns on each side are not compared; with 0 the maps are compared as tori.
    Moves by fractions of a pixel interpolate the whole map as a band-limited torus.
    """
    inside = (slice(None), *(slice(margin, side - margin) for side in before.shape[1:]))
    differences = torch.stack([(after - _moved(before, *move))[inside] for move in moves])
    squares = differences.square().mean((2, 3))
    best = squares.argmin(0)
    each = torch.arange(len(before))
    contrast = before[inside].std((1, 2), correction=0)
    contrast = contrast.where(contrast > FLAT, torch.nan)
    size = squares[best, each].sqrt() / contrast
    return Change(size, torch.tensor(moves)[best], differences[best, each] / contrast[:, None, None])


def _moved(maps: Tensor, down: float, right: float) -> Tensor:
    """Return maps (n, h, w) moved as tori; whole pixels are not interpolated."""
    if down.is_integer() and right.is_integer():
        return maps.roll((int(down), int(right)), (1, 2))
    return shift_subpixel(maps, down, right)


def _pooled(pool: Component, pairs: Sequence[Pair], tori: Sequence[Pair], index: int) -> PooledMap:
    """Return a pool's maps for the filter ``index``, and its changes over the windows and over the same as tori."""
    module, torus = initial_pool(pool), initial_pool(pool, "circular")
    margin = MARGIN if module.keeps_size else MARGIN // STRIDE

    def maps_of(used: nn.Module, given: Sequence[Pair]) -> Pair:
        """Return the pooled maps (windows, h, w) of the filter before and after the step."""
        first, second = ([_applied(used, pair[side])[index] for pair in given] for side in (0, 1))
        return torch.stack(first), torch.stack(second)

    before, after = maps_of(module, pairs)
    around = maps_of(torus, tori)
    found, circular = change(before, after, margin), change(*around)
    return PooledMap(
        written(pool),
        weights_of(pool),
        before[SHOWN],
        after[SHOWN],
        found.take(SHOWN),
        circular.take(SHOWN),
        _spread(found.size),
        _spread(circular.size),
        _spread(change(*around, moves=HALVES).size),
        float(before[SHOWN].std(correction=0) / pairs[SHOWN][0][index].std(correction=0)),
    )


def _spread(sizes: Tensor) -> Spread:
    return Spread(float(sizes.mean()), float(sizes.min()), float(sizes.max()))


def _applied(pool: nn.Module, maps: Tensor) -> Tensor:
    """Return what a pool makes of the maps (c, h, w) of one photograph."""
    with torch.no_grad():
        pooled: Tensor = pool(maps[None])
    return pooled[0]


def initial_pool(pool: Component, padding_mode: PaddingMode = "zeros", seed: int = 0) -> Pool:
    """Return a pool for the maps of the bank with stride 2, in eval mode and float64; ``seed`` draws its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_pool(pool, len(FILTERS), STRIDE, padding_mode).double().eval()


def weights_of(pool: Component) -> str:
    """Return "" for a pool without learned weights, "initial" for fixed initial weights, "random" for drawn ones."""
    first, second = (dict(initial_pool(pool, seed=seed).named_parameters()) for seed in (0, 1))
    if not first:
        return ""
    return "initial" if all(torch.equal(first[name], second[name]) for name in first) else "random"


def written(pool: Component) -> str:
    """Return a pool as one writes it, like "gem_local:p=4.0", without the options that have their defaults."""
    defaults = registered.resolve(pool.name).options
    options = [f"{name}={value}" for name, value in pool.options.items() if value != defaults[name]]
    return f"{pool.name}:{','.join(options)}" if options else pool.name


def default_pools() -> list[Component]:
    """Return every registered pool whose output does not depend on random initial weights, with default options."""
    every = [registered.resolve(name) for name in registered.names()]
    return [pool for pool in every if weights_of(pool) != "random"]
