"""issue: the GitHub issue of the nightly gate."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click

from poolbench.cli.options import FAILED, NO_DATA, out_option, say
from poolbench.core import UsageError


def _repository(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
        raise UsageError(f"--repo is OWNER/NAME, got '{value}'")
    return value


@click.command("issue")
@out_option
@click.option(
    "--repo", metavar="OWNER/NAME", callback=_repository, help="The repository (default: that of the current folder)."
)
@click.option("--post", is_flag=True, help="Run the commands; they are only printed otherwise.")
def issue_command(out: Path, repo: str | None, post: bool) -> None:
    """Open, update or close the GitHub issue of the nightly gate, from what 'poolbench regress' wrote to OUT/regress.

    A night with regressions opens the issue or updates it, and comments where other groups are regressed than before.
    A green night comments and closes it. A night without data leaves it as it is. Needs the GitHub CLI, gh.
    """
    from poolbench_tracking.tracker_issue import GitHub, TrackerUnavailable, read_night, requests, written

    folder = out / "regress"
    verdict, summary = read_night(folder)
    if verdict.exit_code == NO_DATA:
        say("no data in this night: the issue stays as it is, because absence never heals")
        return
    github, issue, said = GitHub(repo), None, False
    try:
        if post or github.is_installed:
            issue = github.open_issue()
        else:
            say("there is no 'gh' to ask for the open issue; these are the commands if there is none")
        for request in requests(verdict, summary, issue):
            command = written(request, github, folder)
            click.echo(shlex.join(command))
            said = True
            if post:
                github.call(command)
    except TrackerUnavailable as error:
        say(f"poolbench: {error}; run the same command again")
        sys.exit(FAILED)
    if not said:
        say("nothing to do: a green night, and no open issue")
