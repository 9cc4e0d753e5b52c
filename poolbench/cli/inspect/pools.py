"""inspect pools: filters, ReLU and pools on a photograph, before and after a step of one pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolbench.cli.options import interruptible, out_folder_option, plugin_option, say, split_components
from poolbench.core import Component, UsageError
from poolbench.inspect.filters import FILTERS, named_filter

if TYPE_CHECKING:
    from poolbench.inspect.pools import PoolInspection, Spread

SAMPLE = "the cat of the package"


@click.command("pools")
@click.argument("image", required=False, type=click.Path(path_type=Path))
@out_folder_option("Folder for the page and the pictures.")
@plugin_option()
@click.option(
    "--pool", "wanted", metavar="NAME[:KEY=VALUE,...],...", multiple=True,
    help="Pools, like max,max_blur3; or all (default: all whose initial weights are not random).",
)  # fmt: skip
@click.option(
    "--filter", "name", default=FILTERS[0].name, show_default=True, metavar="NAME",
    help=f"Filter in front of the pools: {', '.join(one.name for one in FILTERS)}.",
)  # fmt: skip
@click.option(
    "--size", type=click.IntRange(48, 512), default=160, show_default=True,
    help="Shorter side in px to which a larger IMAGE is scaled down: single pixels stay visible in the pictures.",
)  # fmt: skip
def pools_command(image: Path | None, out: Path, wanted: Sequence[str], name: str, size: int) -> None:
    """Draw what pools make of IMAGE behind an edge filter and a ReLU, and what a step of one pixel changes.

    IMAGE is a PNG, a JPEG or any other picture; without it, a photograph of a cat is taken.
    """
    chosen = named_filter(name)
    from poolbench.cli.progress import counting
    from poolbench.inspect.photograph import read_photograph
    from poolbench.inspect.pools import inspect_pools
    from poolbench_tracking.inspect_pools_page import write_pools
    from poolbench_tracking.own_model_report import make_folder

    photograph = read_photograph(image, size)
    pools = _components(wanted)
    make_folder(out)
    with interruptible(), counting("pools") as show:
        found = inspect_pools(photograph, pools, chosen, show)
    page = write_pools(found, SAMPLE if image is None else image.name, out)
    _print_table(found)
    click.echo(page)


def _components(wanted: Sequence[str]) -> list[Component]:
    """Return the pools that were asked for, each once; say which ones the default leaves out."""
    from poolbench.inspect.pools import default_pools
    from poolbench.registry import pools

    if not wanted:
        chosen = default_pools()
        missing = sorted({*pools.names()} - {pool.name for pool in chosen})
        if missing:
            say(f"left out, because their initial weights are random: {', '.join(missing)}; --pool all takes them, too")
        return chosen
    entries = [entry for text in wanted for entry in split_components(text)]
    if not entries:
        raise UsageError("--pool names no pool; give some, like max,max_blur3, or leave it out")
    names = [name for entry in entries for name in (pools.names() if entry == "all" else [entry])]
    return list(dict.fromkeys(pools.parse(name) for name in names))


def _print_table(found: PoolInspection) -> None:
    """Print a row per pool: its weights, its size, and the means over the windows."""
    from poolbench.inspect.pool_figures import number

    def text(spread: Spread) -> str:
        return f"{number(spread.mean):>10}"

    wide = max(len("pool"), *(len(one.pool) for one in found.maps)) + 2
    click.echo(f"{'pool':<{wide}}{'weights':<9}{'size':>9}{'window':>10}{'torus':>10}{'halves':>10}{'contrast':>10}")
    for one in found.maps:
        size = f"{one.before.shape[1]}x{one.before.shape[0]}"
        changes = text(one.change) + text(one.circular) + text(one.halves)
        click.echo(f"{one.pool:<{wide}}{one.weights or '-':<9}{size:>9}{changes}{one.contrast:>10.2f}")
