"""What several modules of commands share: options, and how to speak to people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

Command = Callable[..., Any]


def say(line: str) -> None:
    """Print one line for people; data goes to stdout, this to stderr."""
    click.echo(line, err=True)


def split_names(ctx: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names of an option that may be given several times, each time with several names."""
    names = tuple(name.strip() for value in values for name in value.split(",") if name.strip())
    return names or None


def with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return the decorator that gives a command these options, in the order of its help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
