"""What a live page shows: scenes of objects and networks; imports no torch."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LiveObject:
    """An object on a patch of black: uint8 ``pixels`` of ``shape`` (c, h, w), in that order.

    ``start`` is the row and column of the patch's corner on the canvas where the object was found. ``label`` is the
    index of its class.
    """

    name: str
    label: int
    shape: tuple[int, int, int]
    pixels: bytes
    start: tuple[int, int]

    def config(self) -> dict[str, Any]:
        """Return the object as plain JSON types."""
        return {
            "name": self.name,
            "label": self.label,
            "shape": list(self.shape),
            "data": base64.b64encode(self.pixels).decode(),
            "start": list(self.start),
        }


@dataclass(frozen=True)
class LiveNetwork:
    """A trained network: its name on the page, its program, and its accuracy on ``images`` test images.

    Networks of one ``head`` are shown side by side; "" where a scene has only one such group. ``detail`` says how the
    network was trained.
    """

    name: str
    head: str
    accuracy: float
    images: int
    learned: bool
    detail: str
    program: Mapping[str, Any]

    def config(self) -> dict[str, Any]:
        """Return the network as plain JSON types."""
        return {
            "name": self.name,
            "head": self.head,
            "accuracy": self.accuracy,
            "images": self.images,
            "learned": self.learned,
            "detail": self.detail,
            "program": self.program,
        }


@dataclass(frozen=True)
class LiveScene:
    """Networks of one data set, objects to move on its canvas (c, h, w), and a note on where both come from."""

    title: str
    canvas: tuple[int, int, int]
    classes: Sequence[str]
    objects: Sequence[LiveObject]
    networks: Sequence[LiveNetwork]
    note: str

    def config(self) -> dict[str, Any]:
        """Return the scene as plain JSON types."""
        return {
            "title": self.title,
            "canvas": list(self.canvas),
            "classes": list(self.classes),
            "objects": [one.config() for one in self.objects],
            "networks": [network.config() for network in self.networks],
            "note": self.note,
        }
