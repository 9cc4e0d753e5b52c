"""merge: the cells of several work folders in one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from poolbench.cli.options import FAILED, OK, existing, out_option, say
from poolbench.core import UsageError


@click.command("merge")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@out_option
def merge_command(folders: Sequence[Path], out: Path) -> None:
    """Copy the cells of work folders into one, which may have cells already; 'report' and 'sync' follow.

    A finished cell replaces an unfinished one. Of a cell with two different results the first stays. The folders are
    only read; run the command again to complete one that was killed. Tuning studies are not merged.
    """
    from poolbench.runner.ledger import Ledger
    from poolbench.runner.merge import Merged, merge

    sources = [existing(folder) for folder in folders]
    for source in sources:
        if source.folder.resolve() == out.resolve():
            raise UsageError(f"'{source.folder}' is the --out itself; leave it out, its cells stay there")
    target = Ledger(out).create()
    found = []
    for source in sources:
        merged: Merged = merge(source, target)
        say(f"'{source.folder}': {merged.copied} cells copied, {merged.kept} were there")
        for line in merged.differing:
            say(f"differs, the first stays: {line}")
        for line in merged.damaged:
            say(f"damaged and left out: {line}; run 'poolbench doctor' there")
        for line in merged.running:
            say(f"left out, merge again later: {line}")
        if (source.folder / "tuning").exists():
            say(f"not merged: the tuning studies of '{source.folder}'")
        found.append(merged)
    click.echo(str(out))
    sys.exit(FAILED if any(merged.differing or merged.running or merged.damaged for merged in found) else OK)
