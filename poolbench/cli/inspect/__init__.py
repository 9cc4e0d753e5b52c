"""inspect: pictures of what pools and networks see, a module per command."""

from __future__ import annotations

import click

from poolbench.cli.inspect.live import live_command
from poolbench.cli.inspect.model import model_command
from poolbench.cli.inspect.pools import pools_command


@click.group("inspect")
def inspect_group() -> None:
    """Draw what pools and networks see."""


for command in (pools_command, model_command, live_command):
    inspect_group.add_command(command)
