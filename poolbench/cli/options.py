"""What commands share: exit codes, options, and how the values of options become arguments."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from poolbench.core import UsageError
from poolbench.plugins import load_plugins
from poolbench.runner.plan import PRESETS, Selection, parse_conditions, parse_seeds, parse_train
from poolbench.runner.shard import Shard

if TYPE_CHECKING:
    from poolbench.runner.ledger import Ledger

OK, FAILED, USAGE, NO_DATA, INTERRUPTED = 0, 1, 2, 3, 130
READER_GONE = 141
"""Whoever read stdout has gone; what a shell shows for a process that SIGPIPE ended."""
COMMAND_LINE = "poolbench.command_line"  # key of the arguments in the meta data of click's context
Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


LONGEST_LINE, MOST_JOBS = 2000, 1024


def printable(line: str) -> str:
    """Return a line for a terminal. Control characters, which a terminal obeys, become escapes: others chose names."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def say(line: str) -> None:
    """Print one line of information to stderr, at most ``LONGEST_LINE`` characters of it. Data goes to stdout.

    Where it cannot be written (a reader that has gone, a full disk below a log), the line is lost and the work goes on.
    """
    with suppress(OSError):
        click.echo(printable(line[:LONGEST_LINE]) + ("..." if len(line) > LONGEST_LINE else ""), err=True)


def tell(text: str) -> None:
    """Print lines of data to stdout."""
    click.echo("\n".join(map(printable, text.splitlines())))


def command_line(*more: str) -> str:
    """Return the command as the user typed it, without passwords in URIs, with more arguments at the end."""
    from poolbench_tracking.mlflow_errors import without_user

    # It is stored in the ledger, in MLflow and in the report.
    given = map(without_user, click.get_current_context().meta[COMMAND_LINE])
    return shlex.join(["poolbench", *given, *more])


def gathered(name: str, build: Callable[..., Any], *options: Decorator) -> Decorator:
    """Return the decorator that adds options to a command and passes them as one argument.

    The command gets ``name=build(...)``; the parameters of ``build`` name the values it takes.
    """
    taken = tuple(inspect.signature(build).parameters)

    def decorate(command: Command) -> Command:
        @wraps(command)
        def wrapped(**values: Any) -> Any:
            return command(**{name: build(**{key: values.pop(key) for key in taken})}, **values)

        decorated: Command = wrapped
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def split_components(text: str) -> list[str]:
    """Return the entries of "gem_local:p=4,eps=1e-3,max": ["gem_local:p=4,eps=1e-3", "max"]; raise UsageError.

    A comma separates entries and the options of an entry. A part KEY=VALUE is an option of the entry before it.
    """
    entries: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, _ = part.partition("=")
        if not equals or ":" in key:
            entries.append(part)
        elif entries and "=" in entries[-1]:
            entries[-1] += f",{part}"
        else:
            name = entries[-1] if entries else "NAME"
            raise UsageError(f"options follow the name and a colon, like {name}:{part}; got '{text}'")
    return entries


def _names(ctx: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...] | None:
    return tuple(entry for value in values for entry in split_components(value)) or None


def _seeds(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    return None if value is None else parse_seeds(value)


def _train(ctx: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    return parse_train([part.strip() for value in values for part in value.split(",") if part.strip()])


def _conditions(ctx: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    return parse_conditions(values)


def _load(ctx: click.Context, option: click.Parameter, values: Sequence[str]) -> Sequence[str]:
    if not ctx.resilient_parsing:  # shell completion runs no code
        load_plugins(values)
    return values


def plugin_option(pass_on: bool = False) -> Decorator:
    """Return the option --plugin, which loads plugins before names are looked up; ``pass_on`` makes it an argument."""
    return click.option(
        "--plugin",
        "plugins",
        metavar="FILE|MODULE",
        multiple=True,
        is_eager=True,
        expose_value=pass_on,
        callback=_load,
        help="Python file or module that registers pools, heads, architectures, data sets or benchmarks. Repeatable.",
    )


class _Folder(click.Path):
    """The path of a folder, which is not empty: click takes an empty one, as of an unset variable, for the current."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            raise UsageError("--out is empty (an unset shell variable?); give a folder, or . for the current one")
        return super().convert(value, param, ctx)


def out_folder_option(help: str, default: Path | None = None) -> Decorator:
    """Return the option --out of a command, which is required if it has no default."""
    # click takes a default of None for one that is given.
    need: dict[str, Any] = {"required": True} if default is None else {"default": default, "show_default": True}
    return click.option("--out", type=_Folder(path_type=Path), help=help, **need)


out_option = out_folder_option("Work folder: ledger, MLflow store, report.", Path("poolbench-out"))
uri_option = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    help="MLflow store or server (default: SQLite in the work folder) [env: MLFLOW_TRACKING_URI].",
)
no_mlflow_option = click.option("--no-mlflow", is_flag=True, help="Write the ledger only; 'sync' can catch up later.")
data_dir_option = click.option(
    "--data-dir",
    envvar="POOLBENCH_DATA",
    default="data",
    show_default=True,
    help="Folder of full data sets [env: POOLBENCH_DATA].",
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(1, MOST_JOBS), help="Worker processes (default: one per CPU core or GPU slot)."
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")


def _axis_option(name: str, field: str, help: str) -> Decorator:
    metavar = "NAME[:KEY=VALUE,...],..."
    return click.option(name, field, metavar=metavar, multiple=True, callback=_names, help=help)


def _selection(
    names: Sequence[str] | str,
    preset: str,
    seeds: Sequence[int] | None,
    train: dict[str, Any],
    epochs: int | None,
    where: dict[str, str],
    pools: Sequence[str] | None,
    heads: Sequence[str] | None,
    architectures: Sequence[str] | None,
    datasets: Sequence[str] | None,
) -> Selection:
    """Return what the selectors of a command ask for; raise UsageError for two numbers of epochs."""
    if epochs is not None:
        if train.get("epochs", epochs) != epochs:
            raise UsageError(f"--epochs {epochs} contradicts --train epochs={train['epochs']}; give one of them")
        train = {**train, "epochs": epochs}
    wanted = (names,) if isinstance(names, str) else tuple(names)
    return Selection(wanted, preset, pools, heads, architectures, datasets, seeds, train, where)


selection_options = gathered(
    "selection",
    _selection,
    click.option("--preset", default="quick", show_default=True, help=f"One of {', '.join(PRESETS)}."),
    _axis_option("--pool", "pools", "Pools instead of the preset's, like max,gem_local:p=4; or all."),
    _axis_option("--head", "heads", "Heads instead of the preset's, like avg,top_k:k=3; or all."),
    _axis_option("--arch", "architectures", "Only these architectures; timm:NAME is any model of timm."),
    _axis_option("--dataset", "datasets", "Data sets instead of the preset's."),
    click.option("--seeds", callback=_seeds, help="Seeds, like 3, 0-4 or 0,2,5-7."),
    click.option(
        "--train",
        metavar="NAME=VALUE,...",
        multiple=True,
        callback=_train,
        help="Training options instead of the preset's, like optimizer=sgd,learning_rate=0.1. Repeatable.",
    ),
    click.option("--epochs", type=click.IntRange(min=1), help="Short for --train epochs=N."),
    click.option(
        "--where",
        metavar="FIELD=VALUE",
        multiple=True,
        callback=_conditions,
        help="Only cells with this value, like num_pooling=1 or pool.p=4.0. Repeatable.",
    ),
)


def _shard(ctx: click.Context, option: click.Parameter, value: str | None) -> Shard:
    return Shard(1, 1) if value is None else Shard.parse(value)


shard_option = click.option(
    "--shard",
    metavar="I/N",
    callback=_shard,
    help="Only part I of N, the same for every I of an array job: --shard $SLURM_ARRAY_TASK_ID/10 with --array=1-10.",
)


def existing(out: Path) -> Ledger:
    """Return the ledger of a work folder; raise UsageError for a folder without one."""
    from poolbench.runner.ledger import Ledger

    if not (out / "cells").is_dir():
        raise UsageError(f"'{out}' is not a work folder; give the --out of a run, or start with 'poolbench run all'")
    return Ledger(out)


def say_left_out(*ledgers: Ledger) -> None:
    """Print a line per kind of cells that cannot be used because their plugin or version is not there."""
    for ledger in ledgers:
        for line in ledger.left_out():
            say(line)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C into a line and an exit code: unlike a run, such a command starts again from the beginning."""
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted; nothing was written")
        raise click.exceptions.Exit(INTERRUPTED) from None
