"""Changes of a network, collected first and carried out together."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence

import torch
from torch import nn


class Edits:
    """Modules to put before, after and in the place of modules of a network, by path."""

    def __init__(self) -> None:
        self._before: defaultdict[str, list[tuple[str, nn.Module]]] = defaultdict(list)
        self._after: defaultdict[str, list[tuple[str, nn.Module]]] = defaultdict(list)
        self._instead: dict[str, Sequence[tuple[str, nn.Module]]] = {}

    def put_before(self, path: str, name: str, part: nn.Module) -> None:
        """Put a module before the one at ``path``, behind what was put there earlier."""
        self._before[path].append((name, part))

    def put_after(self, path: str, name: str, part: nn.Module) -> None:
        self._after[path].append((name, part))

    def replace(self, path: str, *parts: tuple[str, nn.Module]) -> None:
        self._instead[path] = parts

    def apply(self, module: nn.Module) -> None:
        """Carry out all changes in place. Several modules at one path become an nn.Sequential there.

        New modules get the mode of the module that they stand beside, and device and dtype of the network.
        """
        kind = next(module.parameters(), torch.zeros(()))
        everywhere: defaultdict[nn.Module, list[str]] = defaultdict(list)
        for path, part in module.named_modules(remove_duplicate=False):
            everywhere[part].append(path)
        # Inner paths first: an outer module stays the same object when a part of it changes.
        paths = {*self._before, *self._after, *self._instead}
        for path in sorted(paths, key=lambda path: path.count("."), reverse=True):
            old = module.get_submodule(path)
            core = self._instead.get(path, [(_name(old), old)])
            new = _sequence([*self._before[path], *core, *self._after[path]])
            for part in (new, *new.children()):
                if part is not old:
                    part.to(kind.device, kind.dtype).train(old.training)
            for place in everywhere[old]:
                parent, _, child = place.rpartition(".")
                setattr(module.get_submodule(parent), child, new)


def _name(part: nn.Module) -> str:
    return "conv" if isinstance(part, nn.Conv2d) else "layer"


def _sequence(parts: Sequence[tuple[str, nn.Module]]) -> nn.Module:
    if len(parts) == 1:
        return parts[0][1]
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for name, part in parts:
        count = sum(name == other.rstrip("0123456789") for other in named)
        named[f"{name}{count + 1}" if count else name] = part
    return nn.Sequential(named)
