"""Checkpoints: the state of an unfinished training, as bytes that name the cell, versions and device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch

from poolbench import __version__

MIN_TRAIN_TO_SAVE_RATIO = 50  # keeps checkpointing below 2 % of the time


@dataclass(frozen=True)
class Checkpoint:
    """The state of one cell's training.

    ``state`` is the network's entry of ``Training.states``, ``rows`` the epochs so far, ``seconds`` their duration.
    """

    state: Mapping[str, Any]
    rows: list[dict[str, float]]
    seconds: float

    @property
    def epoch(self) -> int:
        epoch: int = self.state["epoch"]
        return epoch


class UnfitCheckpoint(Exception):
    """A checkpoint from which the training cannot resume. The message says why."""


def _origin(cell_id: str, device: str) -> dict[str, str]:
    """Return what must be equal for a resumed training to end with the same bits."""
    return {
        "cell": cell_id,
        "poolbench": __version__,
        "torch": str(torch.__version__),
        "device": torch.device(device).type,
    }


def pack(checkpoint: Checkpoint, cell_id: str, device: str) -> bytes:
    """Return a checkpoint of the cell's training on this device as bytes."""
    content = BytesIO()
    torch.save({"origin": _origin(cell_id, device), **vars(checkpoint)}, content)
    return content.getvalue()


def unpack(content: bytes, cell_id: str, device: str) -> Checkpoint:
    """Return the checkpoint; raise UnfitCheckpoint if it is damaged or of another cell, version or device type."""
    try:
        stored = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
        origin = dict(stored.pop("origin"))
        checkpoint = Checkpoint(**stored)
        if type(checkpoint.epoch) is not int or not all(isinstance(row, dict) for row in checkpoint.rows):
            raise TypeError("it does not say how far the training was")
    except Exception as error:  # a damaged file can make the unpickler raise anything
        raise UnfitCheckpoint(f"the checkpoint cannot be read ({type(error).__name__})") from error
    for name, value in _origin(cell_id, device).items():
        if origin.get(name) != value:
            raise UnfitCheckpoint(f"the checkpoint is of {name} {origin.get(name)}, this is {value}")
    return checkpoint
