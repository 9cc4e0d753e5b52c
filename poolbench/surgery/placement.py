"""Where the pool of each site goes, and what becomes of the layer that downsampled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from poolbench.core import Component, UsageError
from poolbench.pooling import pool_class, resolve
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import pools
from poolbench.surgery.activations import Slot, activation_after, slot_after
from poolbench.surgery.borders import Refusal, Size, convolution, dense_window, is_plain, mode_of, pair, window_of
from poolbench.surgery.layers import Widths
from poolbench.surgery.sites import Site
from poolbench.surgery.trace import Call, Trace

PlacementName = Literal["after_activation", "before_norm", "before_convolution"]


@dataclass(frozen=True)
class Placed:
    """A pool to be built: for ``channels`` and a map of ``size`` (h, w), cropped to ``crop`` if that is given.

    It goes to ``slot``. The layer of the site becomes ``layers``, the last of which keeps the layer's weights;
    none: the pool takes the place of the layer.
    """

    site: Site
    pool: Component
    mode: PaddingMode
    channels: int
    size: Size
    slot: Slot
    layers: tuple[nn.Module, ...] = ()
    crop: Size | None = None
    note: str = ""


@dataclass(frozen=True)
class Placer:
    """Decides for each site of a traced network; raises Refusal where the pool has no place."""

    module: nn.Module
    graph: Trace
    pool: Component
    mode: PaddingMode | None
    placement: PlacementName

    def __call__(self, site: Site) -> Placed:
        layer, call = self.module.get_submodule(site.path), self.graph.calls_of(site.path)[0]
        if isinstance(layer, nn.Conv2d):
            placed = self._convolution(site, layer, call)
        else:
            assert isinstance(layer, nn.MaxPool2d | nn.AvgPool2d)
            placed = self._window(site, layer, call)
        kind, (height, width) = pool_class(placed.pool.name), placed.crop or placed.size
        if kind.needs_divisible_size and (height % site.stride or width % site.stride):
            raise UsageError(
                f"{site.path}: pool '{placed.pool.name}' needs a map whose sides its stride {site.stride} divides, got "
                f"{height}x{width}; use images of another size (sides that 32 divides suit most networks)"
            )
        return placed

    def _convolution(self, site: Site, layer: nn.Conv2d, call: Call) -> Placed:
        before, note = self.placement == "before_convolution", ""
        slot = Slot(site.path, "after", call.stop - 1)
        if self.placement == "after_activation" and site.kind != "patch_embedding":
            if self.graph.branches is not None:
                where = self.graph.branches or "the network"
                raise Refusal(
                    f"{where} branches on the values of maps, so the activation after it may differ from image to "
                    "image; use placement='before_norm'"
                )
            found = activation_after(self.graph, call)
            if found is not None:
                slot = slot_after(self.graph, found[0])
                note = "the normalisation before it averages over more positions than in the original" * found[1]
            elif pair(layer.kernel_size) == (1, 1):
                # Of a shortcut. A linear pool and a 1x1 convolution commute; the pool costs less on fewer channels
                # (Zhang 2019 has it here, too).
                before, note = True, "no activation follows the 1x1 convolution: before it"
            else:
                note = "no activation follows: right after the convolution"
        if before:
            return self._before(site, layer, call, note)
        window, size = window_of(layer, self.graph, call), site.shape_in[1:]
        widths = window.dense(size, site.shape_out[1:], site.stride)
        dense, border = convolution(layer, size, window, widths, self.mode)
        layers = (dense,) if border is None else (border, dense)
        made = _made(size, window.extent, widths)
        mode = mode_of(layer, self.mode)
        return Placed(site, self.pool, mode, site.shape_out[0], made, slot, layers, note=note)

    def _before(self, site: Site, layer: nn.Conv2d, call: Call, note: str) -> Placed:
        window, size = window_of(layer, self.graph, call), site.shape_in[1:]
        pooled = (-(-size[0] // site.stride), -(-size[1] // site.stride))
        widths = window.after_pool(pooled, site.shape_out[1:])
        # A convolution with padding of its own is checked on the map that it has in the original.
        changed, border = convolution(layer, pooled if is_plain(layer) else size, window, widths, self.mode)
        layers = (changed,) if border is None else (border, changed)
        slot = Slot(site.path, "before", call.start)
        return Placed(site, self.pool, mode_of(layer, self.mode), site.shape_in[0], size, slot, layers, note=note)

    def _window(self, site: Site, layer: nn.MaxPool2d | nn.AvgPool2d, call: Call) -> Placed:
        """Put the pool in place of a pool; a window that is wider than the stride stays, with stride 1.

        Such a window overlaps the next, as the 3x3 maximum of a ResNet does. After it, a pool that consists of a
        maximum and a sampling only samples.
        """
        window, size, wanted = window_of(layer, self.graph, call), site.shape_in[1:], site.shape_out[1:]
        mode, slot = mode_of(layer, self.mode), Slot(site.path, "after", call.stop - 1)
        placed = Placed(site, self.pool, mode, site.shape_in[0], size, slot)
        whole = (wanted[0] * site.stride, wanted[1] * site.stride)
        ceiled = (-(-size[0] // site.stride), -(-size[1] // site.stride))
        if max(window.extent) <= site.stride and not any(window.widths):
            if ceiled == wanted:
                return placed
            if whole[0] <= size[0] and whole[1] <= size[1]:
                return replace(placed, crop=whole)
        widths: Widths = window.dense(size, wanted, site.stride)
        made = _made(size, window.extent, widths)
        kernel = "x".join(map(str, pair(layer.kernel_size)))
        kind = "maximum" if isinstance(layer, nn.MaxPool2d) else "mean"
        placed = replace(placed, size=made, layers=tuple(dense_window(layer, window, widths, self.mode)))
        note = f"the {kernel} {kind} stays, with stride 1"
        sampling = pool_class(self.pool.name).sampling
        if isinstance(layer, nn.MaxPool2d) and sampling is not None:
            rest = resolve(pools, Component(sampling, dict(self.pool.options)))
            return replace(placed, pool=rest, note=f"{note}; '{sampling}' is '{self.pool.name}' without its maximum")
        return replace(placed, note=note)


def _made(size: Size, extent: Size, widths: Widths) -> Size:
    left, right, top, bottom = widths
    return size[0] + top + bottom - extent[0] + 1, size[1] + left + right - extent[1] + 1
