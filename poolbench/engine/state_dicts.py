"""State dicts of strangers: files that are read without running code, and tensors that a network can take."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from poolbench.core import UsageError


def plain_load(path: Path) -> object:
    """Return what a file of torch.save holds; raise an exception of any type for objects, whose code is not run."""
    with warnings.catch_warnings():
        # Of kinds of tensors that are refused anyway.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def check_state_dict(state: object, path: Path) -> Mapping[str, Tensor]:
    """Return what a file holds if it is a state dict of dense, finite tensors with values; else raise UsageError."""
    found: dict[str, Tensor] = state if isinstance(state, dict) else {}
    if not found or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()):
        raise UsageError(f"'{path}' does not hold a state dict; save model.state_dict() with torch.save")
    for name, value in found.items():
        if fault := _fault(value):
            raise UsageError(f"'{name}' in '{path}' {fault}; save the state dict of the plain float network")
    return found


def _fault(value: Tensor) -> str:
    """Return what keeps a tensor from being copied into a network, "" for nothing."""
    if value.is_meta:
        return "is on the device meta and has no values"
    if value.is_quantized:
        return "is quantised"
    if value.is_nested or value.layout is not torch.strided:
        return "is not dense"
    if value.is_complex():
        return "has complex values"
    # An expanded tensor claims more values than its file holds.
    if value.numel() * value.element_size() > max(value.untyped_storage().nbytes(), value.element_size()):
        return "has more values than are stored"
    return "" if not value.is_floating_point() or bool(value.isfinite().all()) else "has values that are not finite"
