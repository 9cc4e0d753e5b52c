"""``poolbench``, or ``python -m poolbench``: the command line as a process."""

from __future__ import annotations

import signal
import sys


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
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    command()
