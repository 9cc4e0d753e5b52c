"""doctor: check every file of a work folder, and mend what can be mended."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolbench.cli.options import FAILED, OK, existing, out_option, plugin_option, say, tell
from poolbench.core import UsageError

if TYPE_CHECKING:
    from poolbench.runner.examine import Finding


@click.command("doctor")
@plugin_option()
@out_option
@click.option("--history", type=click.Path(path_type=Path), help="Folder of a history of nights to check as well.")
@click.option("--fix", is_flag=True, help="Mend what is wrong. Damaged files are moved to 'damaged', never deleted.")
def doctor_command(out: Path, history: Path | None, fix: bool) -> None:
    """Check every file of a work folder: cells, commands, tuning studies and the MLflow store.

    Prints a line for each thing that is wrong, and what --fix does about it. The exit code is 1 if something is left.
    """
    existing(out)
    left = 0
    for finding in _findings(out, history):
        tell(finding.what)
        left += not _mended(finding, fix)
    say(f"{left} left" if left else "nothing is wrong" if not fix else "nothing is left to mend")
    sys.exit(FAILED if left else OK)


def _findings(out: Path, history: Path | None) -> Iterator[Finding]:
    from poolbench.runner.examine import examine_ledger, examine_partial_files
    from poolbench.runner.ledger import Ledger
    from poolbench.tune.examine import examine_studies
    from poolbench_tracking.history import examine_history
    from poolbench_tracking.mlflow_store import examine_store

    yield from examine_ledger(Ledger(out))
    if (out / "confirmation").exists():
        yield from examine_ledger(Ledger(out / "confirmation"))
    yield from examine_studies(out)
    yield from examine_store(out)
    yield from examine_partial_files(out)
    if history:
        yield from examine_history(history)


def _mended(finding: Finding, fix: bool) -> bool:
    """Say what is done about a finding; do it if wanted, and return whether it is mended."""
    if finding.fix is None:
        tell(f"  to do: {finding.remedy}")
        return False
    if not fix:
        tell(f"  with --fix: {finding.remedy}")
        return False
    try:
        finding.fix()
    except (UsageError, OSError) as error:
        tell(f"  not mended: {error}")
        return False
    tell(f"  mended: {finding.remedy}")
    return True
