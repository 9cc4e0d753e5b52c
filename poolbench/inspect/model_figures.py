"""The pictures of an inspection: maps stage by stage, class maps, saliency maps of the image and of the moved image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from poolbench.inspect.findings import Look, NetworkFindings, Picture
from poolbench.inspect.saliency import METHODS, MOVES, Method, Move, moved, moved_back
from poolbench.inspect.stages import Stage
from poolbench.inspect.subject import Shown, Subject
from poolbench.plots.images import colour_bar
from poolbench.plots.style import GREY, MAP_COLOURS, STYLE, to_png

MOST_MAPS = 16
"""Maps per stage that are drawn, the most active units first."""
ACROSS = 8
TILE, GAP = 0.92, 0.16  # inches of a map, and between maps across
LABEL = 0.2  # inches of the text above a map
BAD = "#b34700"
SEQUENTIAL = "viridis"
THUMBNAIL = 64
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Seen:
    """What a network makes of the shown images.

    ``maps`` are those of each stage (images, c, h, w), ``class_maps`` (images, outputs, h, w) or None, ``saliency`` of
    each image {method: {version of the image: map (h, w)}}.
    """

    maps: Sequence[Tensor]
    class_maps: Tensor | None
    saliency: Sequence[dict[Method, dict[str, Tensor]]]


def draw(
    subject: Subject, stages: Sequence[Stage], found: Sequence[NetworkFindings], seen: Sequence[Seen]
) -> list[Picture]:
    """Return all pictures, section by section; networks stand side by side in the pictures of an image."""
    pictures: list[Picture] = []
    with matplotlib.rc_context(STYLE):
        for index, shown in enumerate(subject.shown):
            stem = f"{index + 1}-{re.sub(r'[^A-Za-z0-9]+', '-', shown.name)[:60].strip('-')}"
            for number, stage in enumerate(stages):
                figure = draw_stage(number, index, shown, found, seen)
                units, height, width = stage.shape
                caption = f"{units} units, {height}x{width}, after {found[0].stages[number].path}"
                name = f"maps-{stem}-stage{number + 1}.png"
                pictures.append(Picture("stages", shown.name, name, caption, to_png(figure)))
            figure_of_classes = draw_class_maps(index, shown, found, seen, subject)
            if figure_of_classes is not None:
                name = f"class-maps-{stem}.png"
                pictures.append(Picture("class_maps", shown.name, name, "class maps", to_png(figure_of_classes)))
            for place, (network, own) in enumerate(zip(found, seen, strict=True)):
                figure = draw_saliency(shown, network.looks[index], own.saliency[index])
                name = f"saliency-{stem}{f'-{place}' if place else ''}.png"
                caption = f"{network.name}: evidence for {network.looks[index].decision}"
                pictures.append(Picture("saliency", shown.name, name, caption, to_png(figure)))
    return pictures


def draw_stage(number: int, index: int, shown: Shown, found: Sequence[NetworkFindings], seen: Sequence[Seen]) -> Figure:
    """Draw up to ``MOST_MAPS`` maps of one stage for one image, for each network, on the scale of the whole stage."""
    every = torch.cat([own.maps[number].flatten() for own in seen]).numpy()
    low, high = min(0.0, float(np.quantile(every, 0.002))), float(np.quantile(every, 0.998))
    norm = Normalize(low, high if high > low else low + 1)
    order = found[0].stages[number].units.order[:MOST_MAPS]
    rows = -(-len(order) // ACROSS)
    block = rows * (TILE + LABEL) + 0.3
    side = min(2, rows) * TILE
    left = side + 2 * GAP
    width = left + ACROSS * (TILE + GAP) + 0.65
    figure, axes = _canvas(width, len(found) * block + 0.05)
    for place, (network, own) in enumerate(zip(found, seen, strict=True)):
        top = place * block + 0.3
        if len(found) > 1:
            axes.text(left, top - 0.12, network.name, fontsize=9, fontweight="bold")
        _put(axes, picture(shown.pixels), 0.05, top + LABEL, side)
        units = network.stages[number].units
        for tile, unit in enumerate(order):
            x = left + (tile % ACROSS) * (TILE + GAP)
            y = top + (tile // ACROSS) * (TILE + LABEL) + LABEL
            _put(axes, own.maps[number][index, unit].numpy(), x, y, TILE, SEQUENTIAL, norm)
            state = "dead" if unit in units.dead else "copy" if unit in units.duplicates else ""
            axes.text(x, y - 0.04, f"{unit} {state}".strip(), fontsize=7.5, color=BAD if state else "#444444")
    _bar(figure, SEQUENTIAL, norm, width)
    return figure


def draw_class_maps(
    index: int, shown: Shown, found: Sequence[NetworkFindings], seen: Sequence[Seen], subject: Subject
) -> Figure | None:
    """Draw the class maps of the decided class, the runner-up and the label for one image, one row per network."""
    chosen = [
        (network.looks[index], own.class_maps[index], network.name)
        for network, own in zip(found, seen, strict=True)
        if own.class_maps is not None
    ]
    if not chosen:
        return None
    names = [subject.class_name(place) for place in range(max(2, len(chosen[0][1])))]
    side = 1.9
    shown_maps = [
        [maps[0 if len(maps) == 1 else names.index(value.name)] for value in look.class_maps]
        for look, maps, _ in chosen
    ]
    reach = max(float(one.abs().max()) for row in shown_maps for one in row) or 1.0
    norm = Normalize(-reach, reach)
    across = 1 + max(len(row) for row in shown_maps)
    width, block = across * (side + 0.25) + 0.8, side + 0.95
    figure, axes = _canvas(width, len(chosen) * block)
    for place, ((look, _, name), maps) in enumerate(zip(chosen, shown_maps, strict=True)):
        top = place * block + 0.5
        _put(axes, picture(shown.pixels), 0.05, top, side)
        axes.text(0.05, top - 0.08, shown.name if len(found) == 1 else name, fontsize=9, fontweight="bold")
        for column, (value, one) in enumerate(zip(look.class_maps, maps, strict=True), start=1):
            x = 0.05 + column * (side + 0.25)
            _put(axes, one.numpy(), x, top, side, MAP_COLOURS, norm)
            axes.text(x, top - 0.08, f"{value.name}\n({value.role})", fontsize=8.5)
            axes.text(x, top + side + 0.22, f"mean {value.mean:.3g}   maximum {value.maximum:.3g}", fontsize=8.5)
    _bar(figure, MAP_COLOURS, norm, width)
    return figure


def draw_saliency(shown: Shown, look: Look, maps: dict[Method, dict[str, Tensor]]) -> Figure:
    """Draw the saliency maps of an image and those of the moved images, moved back, one column per method."""
    side, gap, label = 1.75, 0.2, 0.42
    numbers = {one.method: one for one in look.saliency}
    width, height = (1 + len(maps)) * (side + gap) + 0.1, 3 * (side + label) + 0.05
    figure, axes = _canvas(width, height)
    for row, version in enumerate(("original", *MOVES)):
        top = row * (side + label) + label
        pixels = shown.pixels if version == "original" else moved(shown.pixels.cpu()[None], _move(version))[0]
        _put(axes, picture(pixels), 0.05, top, side)
        axes.text(0.05, top - 0.07, shown.name if row == 0 else MOVES[_move(version)], fontsize=9, fontweight="bold")
        for column, (method, versions) in enumerate(maps.items(), start=1):
            x = 0.05 + column * (side + gap)
            reach = max(_reach(one) for one in versions.values())
            is_signed = method != "grad_cam"
            norm = Normalize(-reach if is_signed else 0.0, reach)
            drawn = versions[version]
            if version == "shift":
                # The last column has left the image.
                drawn = F.pad(moved_back(drawn[None, None], "shift")[0, 0, :, :-1], (0, 1), value=float("nan"))
            elif version == "turn":
                drawn = moved_back(drawn[None, None], "turn")[0, 0]
            _put(axes, drawn.numpy(), x, top, side, MAP_COLOURS if is_signed else SEQUENTIAL, norm)
            text = METHODS[method]
            if version != "original":
                value = getattr(numbers[method], version)
                text = f"moved back: {'-' if value is None else f'{value:.2f}'}"
            axes.text(x, top - 0.07, text, fontsize=9)
    return figure


def _move(version: str) -> Move:
    return "shift" if version == "shift" else "turn"


def _reach(one: Tensor) -> float:
    """Return the largest value of a saliency map, without the few that would make the rest pale."""
    return float(np.quantile(one.abs().numpy(), 0.995)) or float(one.abs().max()) or 1.0


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure with one axes whose units are inches from the upper left corner."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def _put(
    axes: Axes, array: Array, x: float, y: float, side: float, colours: str | None = None, norm: Normalize | None = None
) -> None:
    """Draw an array (h, w) or (h, w, 3) into a square whose upper left corner is at x, y."""
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(array, cmap=colours, norm=norm, extent=(x, x + side, y + side, y), aspect="auto")
    # An image changes the limits of its axes.
    axes.set(xlim=limits[0], ylim=limits[1])


def _bar(figure: Figure, colours: str, norm: Normalize, width: float) -> None:
    height = figure.get_figheight()
    long = min(1.8, height - 0.5)
    place = figure.add_axes(((width - 0.72) / width, 1 - (0.3 + long) / height, 0.13 / width, long / height))
    colour_bar(ScalarMappable(norm, colours), place, "")
    place.tick_params(colors=GREY, labelsize=7)


def picture(pixels: Tensor) -> Array:
    """Return an input (c, h, w) as an image (h, w, 3) in [0, 1]; inputs outside of it are stretched to it."""
    values = pixels.detach().cpu().float()
    values = values[:3] if len(values) >= 3 else values[:1].expand(3, -1, -1)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, 1e-9)
    image: Array = values.permute(1, 2, 0).numpy()
    return image


def thumbnail(pixels: Tensor) -> bytes:
    """Return an image (c, h, w) as a PNG of at most ``THUMBNAIL`` px."""
    from PIL import Image

    values = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    image = Image.fromarray((255 * picture(values)).round().astype(np.uint8))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    content = BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()
