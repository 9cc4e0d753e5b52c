"""The command line, a module per group of commands.

Heavy libraries are imported inside the commands that need them, so that --help, list and plan stay fast.
"""

from __future__ import annotations

import errno
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, NoReturn

import click

from poolbench import __version__
from poolbench.cli.baselines import baseline_group
from poolbench.cli.bisect import bisect_command
from poolbench.cli.deciding import claims_command, decide_command
from poolbench.cli.doctor import doctor_command
from poolbench.cli.inspect import inspect_group
from poolbench.cli.issue import issue_command
from poolbench.cli.merging import merge_command
from poolbench.cli.options import COMMAND_LINE, INTERRUPTED, NO_DATA, READER_GONE, USAGE, say
from poolbench.cli.own_model import advise_command, evaluate_command
from poolbench.cli.planning import list_command, plan_command
from poolbench.cli.regress import regress_command
from poolbench.cli.results import report_command, sync_command, ui_command
from poolbench.cli.running import run_command
from poolbench.cli.shift_map import shift_map_command
from poolbench.cli.status import status_command
from poolbench.cli.tuning import tune_command
from poolbench.core import MissingData, UsageError

BAD_PATH = (errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EPERM)
"""Errors of the system that a path causes, wherever it is first used."""

BAD_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
"""Errors of writing to a stream."""


class Suite(click.Group):
    """The group of all commands. Turns wrong usage, missing data and Ctrl-C into one line and an exit code."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        given = list(args)
        if isinstance(sys.stdout, TextIOWrapper):
            # Names of files need not be Unicode; printing one must not cost a command that has done its work.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            if any("\0" in argument for argument in given):
                raise click.UsageError("an argument holds a NUL character; leave it out")
            ctx = super().make_context(info_name, args, *more, **extra)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except KeyboardInterrupt:
            _end_interrupted()
        except click.UsageError as error:
            _refuse(error)
        except OSError as error:
            _end_refused(error)
        ctx.meta[COMMAND_LINE] = given
        return ctx

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _end_interrupted()
        except MissingData as error:
            say(f"poolbench: {error}")
            ctx.exit(NO_DATA)
        except UsageError as error:
            say(f"poolbench: {error}")
            ctx.exit(USAGE)
        except click.UsageError as error:
            _refuse(error)
        except OSError as error:
            _end_refused(error)


def _end_interrupted() -> NoReturn:
    # A second Ctrl-C must not replace the exit code.
    with suppress(KeyboardInterrupt):
        say("interrupted; finished cells are kept, the same command continues")
    sys.exit(INTERRUPTED)


def _end_refused(error: OSError) -> NoReturn:
    """End with the exit code of an error of a path or of the output; raise any other."""
    if isinstance(error, BrokenPipeError):
        sys.exit(READER_GONE)
    if error.errno in BAD_PATH:
        say(f"poolbench: cannot use '{error.filename}': {error.strerror}; give another path")
    elif error.errno in BAD_OUTPUT and error.filename is None:
        say(f"poolbench: cannot write the output: {error.strerror}; what the command has done is kept")
    else:
        raise error
    sys.exit(USAGE)


def _refuse(error: click.UsageError) -> NoReturn:
    command = error.ctx.command_path if error.ctx else "poolbench"
    say(f"poolbench: {error.format_message()} (see '{command} --help')")
    raise click.exceptions.Exit(USAGE)


@click.group(cls=Suite, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="poolbench")
def main() -> None:
    """What pooling does to image classifiers, measured.

    Exit codes: 0 fine, 1 a cell failed or a metric regressed, 2 wrong usage, 3 data missing, 130 interrupted.
    """


for command in (
    list_command,
    plan_command,
    run_command,
    decide_command,
    claims_command,
    status_command,
    doctor_command,
    merge_command,
    report_command,
    sync_command,
    tune_command,
    regress_command,
    baseline_group,
    issue_command,
    bisect_command,
    shift_map_command,
    evaluate_command,
    advise_command,
    inspect_group,
    ui_command,
):
    main.add_command(command)
