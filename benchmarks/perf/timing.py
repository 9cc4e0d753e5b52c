"""Shared by the timing scripts: options, the environment line, tables and the JSON file."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from poolbench.core import UsageError
from poolbench.runner.environment import environment, resolve_device


@dataclass(frozen=True)
class Column:
    """A table column: title, width (negative: left-aligned) and format of its values."""

    title: str
    width: int
    format: str = ""

    def cell(self, value: Any) -> str:
        text = format(value, self.format)
        return text.ljust(-self.width) if self.width < 0 else text.rjust(self.width)


def print_header(columns: Sequence[Column]) -> None:
    """Print the titles of a table."""
    print("".join(f"{column.title:{'<' if column.width < 0 else '>'}{abs(column.width)}}" for column in columns))


def print_row(columns: Sequence[Column], values: Sequence[Any]) -> None:
    """Print one row at once, so that a long run shows its progress."""
    print("".join(column.cell(value) for column, value in zip(columns, values, strict=True)), flush=True)


def parser(docstring: str | None, device: bool = True) -> argparse.ArgumentParser:
    """Return a parser with ``--json`` and ``--device``, described by the script's first docstring line."""
    options = argparse.ArgumentParser(description=(docstring or "").partition("\n")[0])
    if device:
        options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    options.add_argument("--json", type=Path, metavar="FILE", help="store all figures in FILE")
    return options


def parse(options: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed arguments with ``device`` resolved; exit with 2 if it is not available."""
    parsed = options.parse_args(arguments)
    try:
        parsed.device = resolve_device(parsed.device)
    except UsageError as error:
        options.error(str(error))
    return parsed


def environment_line(facts: dict[str, Any]) -> str:
    """Return one line with device, threads and torch version."""
    return f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}"


def store(file: Path | None, device: str, figures: dict[str, Any]) -> None:
    """Write the environment and the figures to a JSON file; nothing if ``file`` is None."""
    if file is not None:
        file.write_text(json.dumps({"environment": environment(device), **figures}, indent=1))


def positive(text: str) -> int:
    """Return an integer argument of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def seconds(work: Callable[[], object]) -> float:
    """Return the wall-clock seconds of one call, including queued GPU work."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
