"""list and plan: what there is, and what 'run' would do. They import no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from poolbench.cli.options import out_option, plugin_option, say, selection_options, shard_option
from poolbench.core import Scalar
from poolbench.declared import Option
from poolbench.registry import TIMM, TIMM_OPTIONS, Registry, architectures, benchmarks, datasets, heads, pools
from poolbench.runner.plan import Selection, plan
from poolbench.runner.shard import Shard

REGISTRIES: dict[str, Registry[Any]] = {
    "benchmarks": benchmarks,
    "pools": pools,
    "heads": heads,
    "architectures": architectures,
    "datasets": datasets,
}


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(list(REGISTRIES)))
@plugin_option()
def list_command(kind: str | None) -> None:
    """List benchmarks, pools, heads, architectures and data sets with their options.

    Options are set with NAME:KEY=VALUE, like --pool gem_local:p=4.
    """
    for name in [kind] if kind else REGISTRIES:
        indent = "" if kind else "  "
        if not kind:
            click.echo(f"{name}:")
        entries = _entries(REGISTRIES[name])
        width = max((len(entry) for entry, _, _ in entries), default=0)
        for entry, text, options in entries:
            click.echo(f"{indent}{entry:<{width}}  {text}".rstrip())
            if options:
                click.echo(f"{indent}{'':<{width}}  options: {options}")


def _entries(registry: Registry[Any]) -> list[tuple[str, str, str]]:
    """Return (name, description with marks, options) of every entry, and of all timm models as one."""
    found = []
    for name in registry.names():
        marks = [fact.replace("_", " ") for fact, value in registry.facts(name).items() if value is True]
        mark = f" ({', '.join(marks)})" if marks else ""
        found.append((name, f"{registry.describe(name)}{mark}", _described(registry.options(name).values())))
    if registry is architectures:
        found.append((f"{TIMM}NAME", "Any model of timm.", _described(TIMM_OPTIONS.values())))
    return found


def _described(options: Iterable[Option]) -> str:
    """Return options as "p: float = 3.0, eps: float = 1e-06"."""
    return ", ".join(f"{option.name}: {_type(option)} = {_value(option.default)}" for option in options)


def _type(option: Option) -> str:
    return "|".join(option.choices) if option.choices else option.annotation.replace(" ", "")


def _value(value: Scalar) -> str:
    """Return a value as a user types it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


@click.command("plan")
@click.argument("names", nargs=-1, required=True)
@selection_options
@shard_option
@plugin_option()
@out_option
def plan_command(selection: Selection, shard: Shard, out: Path) -> None:
    """Show the cells that 'run' would execute, and the status of each."""
    from poolbench.runner.ledger import Ledger

    ledger = Ledger(out)
    cells = shard.of(plan(selection))
    done = 0
    for cell in cells:
        status = ledger.result(cell).status
        done += status == "finished"
        click.echo(f"{cell.id}  {status:<8}  {cell.label}")
    say(f"{len(cells)} cells, {done} finished, {len(cells) - done} to run")
