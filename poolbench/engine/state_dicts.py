"""State dicts of strangers: files that are read without running code, and tensors that a network can take."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poolbench.core import UsageError

WRAPPERS = ("state_dict", "model")
"""Keys below which training scripts store the state dict, beside the optimiser's."""


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Return the state dict of a safetensors file or of a file of torch.save with plain tensors.

    A dict that holds it as "state_dict" or "model" is entered; the prefix "module." of DataParallel is removed. Raises
    UsageError for a file that cannot be read, and for pickled objects, which could run code.
    """
    if not path.is_file():
        raise UsageError(f"there is no file '{path}'; give the weights as .safetensors or a saved state dict")
    state = _stored(path)
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    tensors = check_state_dict(state, path)
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _stored(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return plain_load(path)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):
            raise UsageError(f"'{path}' is not a file of torch.save: {one_line(error)}; save a state dict") from error
        raise UsageError(
            f"'{path}' holds pickled Python objects, which could run code when loaded: refused; save model.state_dict()"
        ) from error
    except Exception as error:
        raise UsageError(
            f"'{path}' cannot be read as weights: {one_line(error)}; give .safetensors or a saved state dict"
        ) from error


def one_line(error: BaseException) -> str:
    """Return the first sentence of an exception's message, at most 160 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0].rstrip(".")[:160]


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
