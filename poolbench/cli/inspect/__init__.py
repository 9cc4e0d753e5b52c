"""inspect: pictures of what pools and networks see, a module per command."""

from __future__ import annotations

import click


@click.group("inspect")
def inspect_group() -> None:
    """Draw what pools and networks see."""
