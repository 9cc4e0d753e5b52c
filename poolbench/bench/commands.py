"""The commands that time things: one table on stdout each, every figure in a JSON file on request."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from poolbench.core import UsageError
from poolbench.options import device_option, json_option, say, split_names, with_options
from poolbench.registry import pools


@click.group("bench")
def bench() -> None:
    """Timings side by side in one run."""


def _store(json_file: Path | None, content: dict[str, Any]) -> None:
    from poolbench.runner.ledger import write_json

    if json_file is not None:
        try:
            write_json(json_file, content)
        except OSError as error:
            raise UsageError(f"cannot write '{json_file}': {error.strerror}; give --json another place") from error


@bench.command("pools")
@click.option("--pool", "names", multiple=True, callback=split_names, help="Pools to time (default: all).")
@with_options(device_option, json_option)
def bench_pools_command(names: tuple[str, ...] | None, device: str, json_file: Path | None) -> None:
    """Time every pool at three map sizes, relative to max pooling."""
    from poolbench.bench.pools import bench_pools
    from poolbench.runner.environment import environment, resolve_device

    device = resolve_device(device)
    facts = environment(device)
    click.echo(f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}; x = relative to max")
    rows, shape = [], None
    for row in bench_pools(device, [pools.check(name) for name in names or pools.names()]):
        if row.shape != shape:
            shape = row.shape
            click.echo(f"\nmap {'x'.join(map(str, shape))}")
            head = f"{'pool':<16}{'parameters':>11}{'MFLOPs':>9}"
            click.echo(f"{head}{'forward ms':>12}{'x':>7}{'train ms':>11}{'x':>7}{'peak MB':>9}")
        click.echo(
            f"{row.pool:<16}{row.parameters:>11}{row.flops / 1e6:>9.1f}{row.forward_ms:>12.2f}{row.forward:>7.1f}"
            f"{row.train_ms:>11.2f}{row.train:>7.1f}{row.peak_mb:>9.1f}"
        )
        rows.append(row.as_row())
    _store(json_file, {"environment": facts, "pools": rows})


@bench.command("shift")
@click.option("--canvas", type=click.IntRange(min=32), default=224, show_default=True, help="Side of the map.")
@click.option("--images", type=click.IntRange(min=1), default=16, show_default=True, help="Images for consistency.")
@with_options(device_option, json_option)
def bench_shift_command(canvas: int, images: int, device: str, json_file: Path | None) -> None:
    """Time the periodic map and the exact consistency against trying every position and shift."""
    from poolbench.bench.shift import bench_consistency, bench_map
    from poolbench.runner.environment import environment, resolve_device

    device = resolve_device(device)
    facts = environment(device)
    click.echo(f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}")
    click.echo(
        f"{'measure':<26}{'ms':>10}{'passes':>8}{'all ms':>11}{'passes':>8}{'faster':>9}{'fewer':>8}"
        f"{'difference':>12}{'in passes':>11}"
    )
    rows = []
    for compare in (partial(bench_map, device, canvas), partial(bench_consistency, device, images)):
        row = compare()
        click.echo(
            f"{row.measure:<26}{1e3 * row.seconds:>10.1f}{row.passes:>8}{1e3 * row.slow_seconds:>11.1f}"
            f"{row.slow_passes:>8}{row.times:>8.1f}x{row.fewer_passes:>7.1f}x{row.difference:>12.1e}"
            f"{row.forward_share:>11.0%}"
        )
        rows.append(row.as_row())
    _store(json_file, {"environment": facts, "shift": rows})


@bench.command("train")
@with_options(device_option, json_option)
def bench_train_command(device: str, json_file: Path | None) -> None:
    """Time training: the engine against a tutorial's loop on the CPU, replicas and resnet18 on a GPU."""
    from poolbench.bench.train import FASHION_MNIST, bench_epoch, bench_replicas, bench_throughput
    from poolbench.runner.environment import environment, resolve_device

    device = resolve_device(device)
    content: dict[str, Any] = {"environment": environment(device), "epoch": [], "replicas": [], "resnet18": None}
    facts = environment("cpu")
    click.echo(f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}")
    click.echo(f"\nglobal_pooling network, an epoch of {FASHION_MNIST[0]} images, batch 64, on the CPU")
    click.echo(f"{'part':<16}{'article s':>11}{'engine s':>11}{'ratio':>7}")
    for part in bench_epoch():
        click.echo(f"{part.part:<16}{part.article:>11.2f}{part.engine:>11.2f}{part.ratio:>7.2f}")
        content["epoch"].append({**asdict(part), "ratio": part.ratio})
    if not device.startswith("cuda"):
        click.echo("\nreplicas and resnet18: skipped, they need a CUDA device")
        _store(json_file, content)
        return
    click.echo(f"\n{content['environment']['device_name']}: replicas stacked against one network after another")
    click.echo(f"{'network':<18}{'replicas':>9}{'s per replica-epoch':>21}{'times cheaper':>15}")
    for row in bench_replicas(device):
        click.echo(f"{row.network:<18}{row.replicas:>9}{row.seconds:>21.4f}{row.ratio:>15.1f}")
        content["replicas"].append(asdict(row))
    speed = bench_throughput(device, compiled=True)
    share = "peak of this device not known" if speed.share is None else f"{speed.share:.1%} of the bfloat16 peak"
    click.echo(f"\n{speed.network}, 3x32x32, batch 512: {speed.engine:.0f} images/s in bfloat16, ", nl=False)
    click.echo(f"{speed.plain:.0f} in a plain float32 loop ({speed.ratio:.1f} times), ", nl=False)
    click.echo(f"{speed.compiled:.0f} compiled; ", nl=False)
    click.echo(f"{speed.tflops:.1f} TFLOP/s, {share}")
    content["resnet18"] = {**asdict(speed), "ratio": speed.ratio}
    _store(json_file, content)


@bench.command("rotation")
@click.option("--images", type=click.IntRange(min=2), default=1000, show_default=True)
@click.option("--angles", type=click.IntRange(min=2), default=16, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="The fastest counts.")
@with_options(device_option, json_option)
def bench_rotation_command(images: int, angles: int, repeats: int, device: str, json_file: Path | None) -> None:
    """Time the rotation measure, relative to the bare forward passes, beside tmeasures where it is installed."""
    from poolbench.bench.rotation import OTHER, bench_rotation
    from poolbench.runner.environment import environment, resolve_device

    device = resolve_device(device)
    facts = environment(device)
    click.echo(f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}; x = relative to bare")
    click.echo(f"simple_conv 32/64, {images} images, {angles} angles\n")
    rows = bench_rotation(device, images, angles, repeats)
    click.echo(f"{'':<44}{'seconds':>9}{'ms per pass':>13}{'x':>7}")
    for row in rows:
        each = 1000 * row.seconds / (row.images * row.angles)
        click.echo(f"{row.what:<44}{row.seconds:>9.3f}{each:>13.3f}{row.ratio:>7.2f}")
    if all(row.what != OTHER for row in rows):
        say("tmeasures is not installed (pip install tmeasures statsmodels): left out")
    _store(json_file, {"environment": facts, "rotation": [row.as_row() for row in rows]})
