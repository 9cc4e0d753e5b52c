"""The canvas map: a network's output with one object at every position of a canvas (Scheidl 2022).

The output of a network of convolutions and pools with total stride S repeats every S pixels while the object
is far from the border. One period of the interior and a band along the border then give the whole map. This
is checked during evaluation; if the check fails, every position is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poolbench.measures.shift.periodic import Axis, axes_of, most_passes, periodic_map
from poolbench.measures.shift.probe import receptive_reach, total_stride
from poolbench.measures.shift.scene import Progress, Scene, pairs


@dataclass(frozen=True)
class MapPlan:
    """How :func:`canvas_map` will compute a map of ``rows`` x ``columns`` positions.

    ``passes``: forward passes (of one image each). Without ``axes`` there is one per position and the number
    is exact. With ``axes`` one period and the border should suffice and the number is an upper bound; if the
    network turns out not to be periodic, the ``positions`` not yet evaluated are added.
    """

    rows: int
    columns: int
    passes: int
    axes: tuple[Axis, ...] | None

    @property
    def positions(self) -> int:
        """Number of positions in the map."""
        return self.rows * self.columns

    @property
    def periodic(self) -> bool:
        """Whether one period and the border should suffice."""
        return self.axes is not None


def plan_map(
    model: nn.Module,
    stamp: Tensor,
    canvas: Tensor,
    period: int | None = None,
    exhaustive: bool = False,
    step: int = 1,
) -> MapPlan:
    """Return what :func:`canvas_map` will do with the same arguments, from at most two forward passes.

    Raises ValueError for a stamp with an even side or other channels than the canvas, and for a step below 1.
    """
    channels, stamp_height, stamp_width = stamp.shape
    if stamp_height % 2 == 0 or stamp_width % 2 == 0:
        raise ValueError(f"a stamp needs odd sides to have a centre, got {stamp_height}x{stamp_width}")
    if channels != canvas.shape[0]:
        raise ValueError(f"stamp and canvas need equal channels, got {channels} and {canvas.shape[0]}")
    if step < 1:
        raise ValueError(f"step is at least 1 pixel, got {step}")
    rows, columns = (-(-size // step) for size in canvas.shape[-2:])
    if not exhaustive and bool((canvas == canvas[:, :1, :1]).all()):
        period = period or total_stride(model, canvas)
        reach = receptive_reach(model, canvas)
        axes = axes_of(canvas, stamp, period, reach) if reach is not None else None
        # A coarse grid can be cheaper than the period and the border of the whole map.
        if axes is not None and (step == 1 or most_passes(axes) < rows * columns):
            return MapPlan(rows, columns, most_passes(axes), tuple(axes))
    return MapPlan(rows, columns, rows * columns, None)


def canvas_map(
    model: nn.Module,
    stamp: Tensor,
    canvas: Tensor,
    period: int | None = None,
    exhaustive: bool = False,
    step: int = 1,
    progress: Progress | None = None,
) -> Tensor:
    """Return the outputs (rows, columns, outputs) with ``stamp`` centred on every ``step``-th pixel of ``canvas``.

    ``stamp`` (c, sh, sw) has odd sides and is cut off at the border of ``canvas`` (c, h, w). The grid starts
    at pixel (0, 0): the result is the full map (h, w, outputs) at ``[::step, ::step]``. On a uniform canvas
    the interior is evaluated once per phase of ``period`` (None: the total stride) and the border as deep as
    its effect reaches; random positions check the result. There is one forward pass per grid position if
    there is no such period (receptive field as large as the canvas, attention, pools over the whole map), if
    the check fails, and with ``exhaustive``. :func:`plan_map` tells the number of passes in advance.

    After each batch ``progress(done, total)`` is called with the passes so far and the number expected, which
    grows if the check fails. A step that shares no factor with the period visits every phase.

    Raises ValueError as :func:`plan_map` does.
    """
    plan = plan_map(model, stamp, canvas, period, exhaustive, step)
    scene = Scene(model, stamp, canvas, plan.passes, progress)
    if plan.axes is not None:
        result = periodic_map(scene, plan.axes)
        if result is not None:
            return result[::step, ::step]
    rows, columns = (torch.arange(0, size, step) for size in canvas.shape[-2:])
    scene.total = len(scene.known) + scene.missing(pairs(rows, columns))
    return scene.block(rows, columns)
