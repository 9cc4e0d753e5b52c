"""inspect: pictures of what pools and networks see, a module per command."""

from __future__ import annotations

import click

from poolbench.cli.inspect.pools import pools_command


@click.group("inspect")
def inspect_group() -> None:
    """Draw what pools and networks see."""


inspect_group.add_command(pools_command)
