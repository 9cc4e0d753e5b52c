"""shift-map: the output of one network with a white square at every position of a canvas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from poolbench.cli.options import device_option, gathered, say
from poolbench.core import UsageError
from poolbench.registry import TIMM

if TYPE_CHECKING:
    from torch import nn

    from poolbench.measures.shift import MapPlan
    from poolbench.shift_map import ShiftMap

COARSER = 4  # the step that is suggested for maps with a forward pass per position


@dataclass(frozen=True)
class NetworkChoice:
    """The options that name a network."""

    checkpoint: Path | None
    num_pooling: int
    spec: str | None
    pretrained: bool

    def load(self, device: str) -> nn.Module:
        """Return the network on the device; raise UsageError unless exactly one network is named."""
        if (self.checkpoint is None) == (self.spec is None):
            raise UsageError("give either --checkpoint FILE or --model timm:NAME, package.module:NAME or file.py:NAME")
        from poolbench.runner.environment import resolve_device
        from poolbench.shift_map import named_network, published_network

        device = resolve_device(device)
        if self.spec is None:
            assert self.checkpoint is not None
            return published_network(self.checkpoint, self.num_pooling).to(device)
        network = named_network(self.spec, self.pretrained)
        if self.spec.startswith(TIMM) and not self.pretrained:
            say("the weights are random: --pretrained fetches timm's")
        return network.to(device)


network_options = gathered(
    "choice",
    NetworkChoice,
    click.option(
        "--checkpoint", type=click.Path(path_type=Path, dir_okay=False), help="State dict of analyze_pooling."
    ),
    click.option(
        "--num-pooling",
        type=click.IntRange(0, 2),
        default=1,
        show_default=True,
        help="Number of pooling layers of the checkpoint.",
    ),
    click.option("--model", "spec", help="timm:NAME, package.module:NAME or file.py:NAME instead of a checkpoint."),
    click.option("--pretrained", is_flag=True, help="Fetch the weights of a timm model."),
)


@click.command("shift-map")
@network_options
@click.option(
    "--canvas", type=click.IntRange(32, 4096), help="Side of the black canvas (default: the model's, or 224)."
)
@click.option(
    "--channels", type=click.IntRange(1, 4096), help="Channels of the canvas (default: of the first convolution)."
)
@click.option(
    "--half-size",
    type=click.IntRange(min=0),
    default=6,
    show_default=True,
    help="Half the size of the white square: its side is 2 * HALF_SIZE + 1.",
)
@click.option("--class", "target", type=click.IntRange(min=0), help="Class of the map (default: the most frequent).")
@click.option(
    "--step",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Distance of the positions in pixels. A coarse grid is faster for networks without a period.",
)
@click.option("--exhaustive", is_flag=True, help="One forward pass per position, even if the output is periodic.")
@click.option(
    "--png",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("shift_map.png"),
    show_default=True,
    help="File for the picture. The numbers go into an .npz file of the same name.",
)
@device_option
def shift_map_command(
    choice: NetworkChoice,
    canvas: int | None,
    channels: int | None,
    half_size: int,
    target: int | None,
    step: int,
    exhaustive: bool,
    png: Path,
    device: str,
) -> None:
    """Draw the output of a network for a white square at every position of a black canvas."""
    from poolbench.cli.progress import counting
    from poolbench.shift_map import input_channels, input_size, shift_map

    network = choice.load(device)
    channels = channels or input_channels(network)
    canvas = canvas or input_size(network)
    with counting("forward passes") as show:
        found = shift_map(
            network, channels, canvas, half_size, target, exhaustive, step, partial(_announce, step=step), show
        )
    if found.parts is None:
        say("no phase part and no border part: the output does not repeat on this grid")
    _store(found, canvas, png)
    for name, value in found.numbers().items():
        click.echo(f"{name:<20}{value if isinstance(value, int) else format(value, '.6g')}")
    say(f"map: {png}, numbers: {png.with_suffix('.npz')}")


def _announce(plan: MapPlan, step: int) -> None:
    """Say how many forward passes a map takes, and how many a coarser grid would."""
    if plan.periodic:
        say(f"at most {plan.passes:,} forward passes: one period and the border of the map")
        return
    fewer = -(-plan.rows // COARSER) * -(-plan.columns // COARSER)
    say(f"{plan.passes:,} forward passes, one per position; --step {step * COARSER} takes {fewer:,}")


def _store(found: ShiftMap, canvas: int, png: Path) -> None:
    """Write the picture, and the arrays beside it; raise UsageError for a file that cannot be written."""
    import numpy as np

    from poolbench.plots.maps import map_overview
    from poolbench.plots.style import to_png

    def per_pixel(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return a coarse map (rows, columns) with a value per pixel of the canvas, so that axes are in pixels."""
        return array.repeat(found.step, 0).repeat(found.step, 1)[:canvas, :canvas]

    probability = found.log_odds.sigmoid().numpy()
    arrays = {"probability": probability, "log_odds": found.log_odds.numpy(), "step": np.array(found.step)}
    parts = None
    if found.parts is not None:
        phase, boundary, phases = (x.numpy() for x in (found.parts.phase, found.parts.boundary, found.parts.phases))
        arrays |= {"phase": phase, "boundary": boundary, "phases": phases}
        parts = (per_pixel(phase), per_pixel(boundary), phases)
    try:
        png.write_bytes(to_png(map_overview(per_pixel(probability), parts, f"P(class {found.target})")))
        np.savez_compressed(png.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise UsageError(f"cannot write '{png}': {error.strerror}; give --png another place") from error
