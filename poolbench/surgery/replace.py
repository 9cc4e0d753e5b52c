"""Pools in place of the downsamplings of a network."""

from __future__ import annotations

import copy
import difflib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from poolbench.core import Component, UsageError
from poolbench.pooling import create_pool, pool_class, resolve
from poolbench.pooling.padding import Crop, PaddingMode, check_padding_mode
from poolbench.pooling.polyphase import PolyphasePool
from poolbench.registry import pools
from poolbench.surgery.borders import Refusal
from poolbench.surgery.edits import Edits
from poolbench.surgery.layers import Border, ChoosingPool, FollowingPool, GlobalPool, Phase
from poolbench.surgery.padding import change_padding, positional_layers
from poolbench.surgery.phases import Groups, phase_groups
from poolbench.surgery.placement import Placed, PlacementName, Placer
from poolbench.surgery.sites import LeftAlone, Site, sites_of
from poolbench.surgery.trace import Trace, trace

Sites = Literal["all", "without_stem"] | int | Sequence[str]


@dataclass(frozen=True)
class Replaced:
    """A downsampling that was replaced: its site, the pool and its path ``at``, and what else was done (or "")."""

    site: Site
    pool: Component
    at: str
    note: str


@dataclass(frozen=True)
class Surgery:
    """A new network, the downsamplings replaced in it, and what was left alone."""

    module: nn.Module
    replaced: Sequence[Replaced]
    left: Sequence[LeftAlone]


def replace_pooling(
    module: nn.Module,
    pool: Component,
    *,
    in_shape: tuple[int, int, int],
    padding_mode: PaddingMode | None = None,
    placement: PlacementName = "after_activation",
    sites: Sites = "all",
    min_channels: int = 0,
    head: Component | None = None,
) -> Surgery:
    """Return a copy of a network whose downsamplings are the pool; all weights are kept, the original is unchanged.

    ``in_shape`` is the (c, h, w) of its images. A strided convolution becomes the same convolution with stride 1; the
    pool goes after the activation that follows it (Zhang 2019), right after it ("before_norm"), or before it
    ("before_convolution", on the smaller map). A max or average pool becomes the pool; if its windows overlap, it
    stays with stride 1 before the pool. Maps keep their sizes.

    ``padding_mode`` is that of all layers and pools; None leaves it. ``sites`` limits the replacement to the first
    k sites, to those after the stem, or to these paths; ``min_channels`` to those that give at least so many
    channels. ``head`` replaces the last global pool. Polyphase pools whose outputs meet share their phase.

    Warns if no downsampling was replaced. Raises UsageError for a pool without subsampling, an unknown path, images
    that the network does not take, and maps that the pool does not take.
    """
    pool = _checked(pool, padding_mode, placement)
    changed = copy.deepcopy(module)
    graph = trace(changed, in_shape)
    found, left = sites_of(changed, graph)
    placed, refused = _place(found, Placer(changed, graph, pool, padding_mode, placement), sites, min_channels)
    left += refused
    edits = Edits()
    groups = phase_groups(graph, found)
    built = _build(placed, groups, edits, shared=graph.branches is None)
    if padding_mode is not None:
        left += change_padding(changed, graph, padding_mode, {one.site.path for one in placed}, edits)
    left += positional_layers(changed, graph, groups.maps)
    if head is not None and not _replace_head(changed, graph, head, edits):
        left.append(LeftAlone("", f"no global pool that head '{head.name}' could replace"))
    if not placed:
        why = f"{left[0].path or 'the network'}: {left[0].reason}" if left else "the network has no downsampling"
        warnings.warn(f"surgery replaced no downsampling: {why}", stacklevel=2)
    edits.apply(changed)
    paths = {part: path for path, part in changed.named_modules()}
    replaced = [
        Replaced(one.site, one.pool, paths[part], note) for one, (part, note) in zip(placed, built, strict=True)
    ]
    return Surgery(changed, replaced, left)


def _checked(pool: Component, padding_mode: PaddingMode | None, placement: PlacementName) -> Component:
    """Return the pool with all its options; raise UsageError for what no network could do."""
    if padding_mode is not None:
        check_padding_mode(padding_mode)
    if placement not in get_args(PlacementName):
        raise UsageError(f"unknown placement '{placement}' (there are: {', '.join(get_args(PlacementName))})")
    if pool.name == "none" or pool_class(pool.name).keeps_size:
        raise UsageError(
            f"pool '{pool.name}' cannot replace a downsampling: later layers would have to be dilated; use another"
        )
    return resolve(pools, pool)


def _place(
    found: Sequence[Site], placer: Placer, sites: Sites, min_channels: int
) -> tuple[list[Placed], list[LeftAlone]]:
    """Return the pools to be built, and the sites that stay with the reasons."""
    chosen = _chosen(found, sites)
    placed, left = [], []
    for site in found:
        try:
            if site.path not in chosen:
                raise Refusal("not among the chosen sites")
            if site.kind == "patch_embedding" and isinstance(sites, str | int):
                raise Refusal("a patch embedding makes tokens, not a map to pool; name its path in sites to replace it")
            if site.shape_out[0] < min_channels:
                raise Refusal(f"it gives {site.shape_out[0]} channels, fewer than min_channels={min_channels}")
            placed.append(placer(site))
        except Refusal as reason:
            left.append(LeftAlone(site.path, str(reason)))
    return placed, left


def _chosen(found: Sequence[Site], sites: Sites) -> set[str]:
    """Return the paths of the chosen sites. Raises UsageError for an unknown path or word."""
    paths = [site.path for site in found]
    if isinstance(sites, int):
        if sites < 1:
            raise UsageError(f"sites is the number of downsamplings to replace, at least 1; got {sites}")
        return set(paths[:sites])
    if not isinstance(sites, str):
        for path in sites:
            if path not in paths:
                near = difflib.get_close_matches(path, paths, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(paths) or 'none'}"
                raise UsageError(f"the network has no downsampling '{path}'; {hint}")
        return set(sites)
    if sites not in ("all", "without_stem"):
        raise UsageError(f"unknown sites '{sites}'; give 'all', 'without_stem', a number or a list of paths")
    return {site.path for site in found if sites == "all" or not site.is_stem}


def _build(placed: Sequence[Placed], groups: Groups, edits: Edits, shared: bool) -> list[tuple[nn.Module, str]]:
    """Add the pools and the changed layers to the edits; return the pools and their notes."""
    layers = [create_pool(p.pool, p.channels, stride=p.site.stride, padding_mode=p.mode) for p in placed]
    sharing = dict(_share(placed, layers, groups)) if shared else {}
    paths = {one.site.path for one in placed}
    others = {groups.leader(path): path for path in groups.strides if path not in paths}
    built = []
    for index, (one, layer) in enumerate(zip(placed, layers, strict=True)):
        part, note = sharing.get(index, (layer, ""))
        notes, other = [one.note, note], others.get(groups.leader(one.site.path))
        if isinstance(layer, PolyphasePool):
            if not shared:
                notes.append("chooses a phase of its own, as the network branches on values")
            elif one.site.path in groups.odd:
                notes.append("its map meets one of other strides: no phase fits both")
            elif other is not None:
                notes.append(f"its map meets one whose phase is fixed by {other}")
        built.append((part, "; ".join(filter(None, notes))))
        _insert(one, part, edits)
    return built


def _share(
    placed: Sequence[Placed], layers: Sequence[nn.Module], groups: Groups
) -> Iterator[tuple[int, tuple[nn.Module, str]]]:
    """Yield for each polyphase pool of a group of several its index, its module and a note."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(placed)), key=lambda index: placed[index].slot.time):
        if isinstance(layers[index], PolyphasePool):
            members[groups.leader(placed[index].site.path)].append(index)
    for first, *others in members.values():
        if not others:
            continue
        phase, choosing, path = Phase(), layers[first], placed[first].site.path
        assert isinstance(choosing, PolyphasePool)
        yield first, (ChoosingPool(choosing, phase), "chooses the phase of its group")
        for index in others:
            following = layers[index]
            assert isinstance(following, PolyphasePool)
            yield index, (FollowingPool(following, phase, last=index == others[-1]), f"follows the phase of {path}")


def _insert(one: Placed, part: nn.Module, edits: Edits) -> None:
    path, slot = one.site.path, one.slot
    named = [("border" if isinstance(layer, Border) else "conv", layer) for layer in one.layers[:-1]]
    crop = [("crop", Crop(one.crop))] if one.crop is not None else []
    if one.layers:
        named.append((_kind_name(one), one.layers[-1]))
    if slot.side == "before" and slot.path == path:
        edits.put_before(path, "pool", part)
        edits.replace(path, *named)
    elif slot.side == "before":
        edits.replace(path, *named)
        edits.put_before(slot.path, "pool", part)
    elif one.layers:
        edits.replace(path, *named)
        edits.put_after(slot.path, "pool", part)
    else:
        edits.replace(path, *crop, ("pool", part))


def _kind_name(one: Placed) -> str:
    names: Mapping[str, str] = {"max_pool": "max", "avg_pool": "avg"}
    return names.get(one.site.kind, "conv")


def _replace_head(module: nn.Module, graph: Trace, head: Component, edits: Edits) -> bool:
    """Add to the edits a head in place of the last global pool that runs; return whether there is one."""
    from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d

    pools_of_all = []
    for call in graph.calls:
        part = module.get_submodule(call.path)
        adaptive = isinstance(part, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) and part.output_size in (1, (1, 1))
        of_map = len(call.inputs) == 1 and len(graph.shape(call.inputs[0])) == 4
        if of_map and (adaptive or isinstance(part, SelectAdaptivePool2d)):
            pools_of_all.append(call)
    if not pools_of_all:
        return False
    last = pools_of_all[-1]
    # timm's global pool contains torch's: the outer one flattens, too.
    call = next(outer for outer in pools_of_all if outer.start <= last.start and outer.stop >= last.stop)
    _, channels, height, width = graph.shape(call.inputs[0])
    flat = len(graph.shape(call.outputs[0])) == 2
    edits.replace(call.path, ("head", GlobalPool(head, channels, (height, width), flat)))
    return True
