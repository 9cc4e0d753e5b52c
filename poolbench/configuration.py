"""The configuration of a cell as JSON, checked: the text may come from a stranger, so no type is taken on trust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from poolbench.errors import UsageError

COMPONENTS = ("dataset", "architecture", "pool", "head")
"""The fields of a cell that are components."""
LARGEST_SEED = 999_999_999
COMPONENT_TYPES: Mapping[str, type] = {"name": str, "options": dict}
CELL_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("benchmark", "variant", "padding_mode", "split"), str),
    **dict.fromkeys((*COMPONENTS, "train", "measure"), dict),
    **dict.fromkeys(("seed", "version"), int),
}
TRAIN_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("epochs", "batch_size", "train_images"), int),
    **dict.fromkeys(("learning_rate", "weight_decay", "label_smoothing"), float),
    **dict.fromkeys(("optimizer", "schedule", "precision", "mask", "batch_norm"), str),
    "shuffle": bool,
    "augment": list,
}
"""The types of a configuration in JSON."""


def check_training(config: object) -> None:
    """Raise UsageError for a configuration of a training with other fields or types."""
    _check_types(config, TRAIN_TYPES, "training")


def check_cell(config: Mapping[str, Any], splits: Sequence[str]) -> None:
    """Raise UsageError for a configuration of a cell with other fields or types; ``splits`` are those it may have."""
    _check_types(config, CELL_TYPES, "cell")
    for name in COMPONENTS:
        _check_types(config[name], COMPONENT_TYPES, name)
    for options in (config["measure"], *(config[name]["options"] for name in COMPONENTS)):
        _check_options(options)
    if config["split"] not in splits or not 0 <= config["seed"] <= LARGEST_SEED:
        raise UsageError(f"split is one of {', '.join(splits)} and seed is from 0 to {LARGEST_SEED}")


def _check_types(config: object, types: Mapping[str, type], what: str) -> None:
    """Raise UsageError unless a configuration has exactly these fields, of these types (an int is a float, too)."""
    if not isinstance(config, dict) or config.keys() != types.keys():
        raise UsageError(f"a {what} has the fields {', '.join(types)}")
    for name, kind in types.items():
        value = config[name]
        if type(value) is not kind and not (kind is float and type(value) is int and abs(value) <= LARGEST_SEED):
            raise UsageError(f"{name} of a {what} is of type {kind.__name__}, got {type(value).__name__}")
        _check_text(value)


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise UsageError for an option that is no scalar, or a number that JSON cannot hold."""
    for name, value in options.items():
        is_number = isinstance(value, int | float)
        if not (value is None or isinstance(value, str | bool) or (is_number and abs(value) < inf)):
            raise UsageError(f"option {name} is a word, a finite number, true, false or null")
        _check_text(name)
        _check_text(value)


def _check_text(value: object) -> None:
    """Raise UsageError for a text with halves of characters, which no file and no table can hold."""
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise UsageError(f"{value!r} is no Unicode")
