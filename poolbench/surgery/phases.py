"""Which downsamplings must share a phase: those whose maps meet in a sum, a product or a concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from poolbench.surgery.sites import Site
from poolbench.surgery.trace import Trace

Frame = tuple[str, ...]  # the paths of the sites between the image and a value


@dataclass
class Groups:
    """Which downsamplings share a phase.

    ``strides`` has the stride of each by path, also of those that no pool can replace ("path (function)"). ``odd`` are
    those that meet a map of other strides. ``maps`` has the values that have positions, and the size (h, w) that maps
    after the same downsamplings have without a border.
    """

    strides: dict[str, int]
    parents: dict[str, str] = field(default_factory=dict)
    odd: set[str] = field(default_factory=set)
    maps: dict[int, torch.Size] = field(default_factory=dict)

    def leader(self, path: str) -> str:
        """Return the site that stands for the group of a site."""
        while path in self.parents:
            path = self.parents[path]
        return path

    def join(self, frames: Sequence[Frame]) -> Frame:
        """Return the frame of a value made from values of these frames, and unite the sites they differ in."""
        longest = max(frames, key=len, default=())
        for frame in frames:
            if len(frame) != len(longest) or any(
                self.strides[a] != self.strides[b] for a, b in zip(frame, longest, strict=True)
            ):
                self.odd |= set(frame) ^ set(longest)
                continue
            for a, b in zip(frame, longest, strict=True):
                first, second = self.leader(a), self.leader(b)
                if first != second:
                    self.parents[second] = first
        return longest


def phase_groups(graph: Trace, sites: Sequence[Site]) -> Groups:
    """Return the groups of the sites of a traced network.

    Each value has a frame: the sites that it went through. Where values meet, they must lie on the same grid, so
    their frames must choose the same phases.
    """
    groups = Groups({site.path: site.stride for site in sites})
    made = {graph.calls_of(site.path)[0].outputs[0]: site.path for site in sites}
    frames: dict[int, Frame] = {0: ()}
    # The size of the first value of each frame: later ones may have a border.
    sizes: dict[Frame, torch.Size] = {(): graph.shape(0)[-2:]}
    for index, op in enumerate(graph.ops):
        met = [frames[value] for value in op.inputs if value in frames]
        if not met:
            continue
        frame = groups.join(met)
        shapes = [graph.shape(value) for value in op.inputs]
        for value in op.outputs:
            factor = _factor(sizes[frame], graph.shape(value)[-2:]) if len(graph.shape(value)) == 4 else 1
            if value in made:
                frames[value] = (*frame, made[value])
            elif _is_global(shapes, graph.shape(value)):
                continue
            elif factor > 1:
                path = f"{graph.owner(index)} ({op.name})"
                groups.strides[path] = factor
                frames[value] = (*frame, path)
            else:
                frames[value] = frame
            sizes.setdefault(frames[value], graph.shape(value)[-2:])
    groups.maps = {value: sizes[frame] for value, frame in frames.items()}
    return groups


def _factor(given: Sequence[int], made: Sequence[int]) -> int:
    """Return by how much both sides of a map became smaller, up to borders; 1 if they did not."""
    rows, columns = (round(a / max(b, 1)) for a, b in zip(given, made, strict=True))
    return max(rows, 1) if rows == columns else 1


def _is_global(shapes_in: Sequence[torch.Size], shape_out: torch.Size) -> bool:
    """Say whether a value has no positions: it was pooled over the whole map or is no map."""
    if len(shape_out) < 4:
        return True
    return tuple(shape_out[-2:]) == (1, 1) and any(tuple(shape[-2:]) != (1, 1) for shape in shapes_in)
