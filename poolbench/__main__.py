"""``poolbench``, or ``python -m poolbench``: the command line as a process."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def command() -> None:
    """Run the command line and exit with its code; 130 for a Ctrl-C at any time, also while modules are imported."""
    try:
        try:
            from poolbench.cli import main

            main(prog_name="poolbench")
        finally:
            # Python restores the default handler before its process ends: another Ctrl-C would replace the exit code.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        with suppress(OSError):
            print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        _give_up_output()


def _give_up_output() -> None:
    """Send what could not be written nowhere: Python would try again and exit with 120, not with the command's code."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    command()
