"""Shards: the planned cells dealt out to the tasks of an array job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from poolbench.core import Cell, UsageError


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a plan; ``index`` runs from 1 to ``count``.

    The parts depend on the planned cells alone, not on their order or on what is finished: every cell is in exactly
    one. With at least as many comparison groups as shards, groups stay whole, and the sizes of two shards differ by
    one group at most. With fewer groups, the sizes differ by one cell at most, and a group is cut only where a shard
    is full.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard of a text like "3/10"; raise UsageError for anything else."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip(), re.ASCII)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"a shard is I/N with I from 1 to N, like 3/10, got '{text}'")
        return cls(int(match[1]), int(match[2]))

    def of(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells of this shard, in the order given."""
        groups: dict[str, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(cell.group, []).append(cell)
        # Ids are hashes: in their order, the tasks, pools and architectures are mixed, and so are their costs.
        ordered = [sorted(groups[name], key=lambda cell: cell.seed) for name in sorted(groups)]
        mine = self._whole(ordered) if len(ordered) >= self.count else self._cut(ordered)
        own = set(mine)
        return [cell for cell in cells if cell in own]

    def _whole(self, groups: Sequence[Sequence[Cell]]) -> Iterator[Cell]:
        """Yield the cells of this shard if each group, the largest first, goes to the shard with the fewest cells."""
        sizes = [0] * self.count
        for group in sorted(groups, key=len, reverse=True):
            least = sizes.index(min(sizes))
            sizes[least] += len(group)
            if least == self.index - 1:
                yield from group

    def _cut(self, groups: Sequence[Sequence[Cell]]) -> Sequence[Cell]:
        """Return the cells of this shard if all cells, group by group, are cut into equal parts."""
        cells = [cell for group in groups for cell in group]
        start, end = (len(cells) * part // self.count for part in (self.index - 1, self.index))
        return cells[start:end]
