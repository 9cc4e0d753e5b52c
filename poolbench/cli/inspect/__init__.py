"""inspect: pictures of what pools and networks see, a module per command."""

from __future__ import annotations

import click

from poolbench.cli.inspect.model import model_command


@click.group("inspect")
def inspect_group() -> None:
    """Draw what pools and networks see."""


inspect_group.add_command(model_command)
