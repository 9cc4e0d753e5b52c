"""A finished cell of a work folder as a subject: its network with the weights of the ledger, its test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from poolbench.core import Cell, DataLocation, UsageError
from poolbench.engine.build import build_model
from poolbench.inspect.subject import AS_IT_IS, Shown, Subject, as_input
from poolbench.pooling import pool_class, pooling_paths
from poolbench.registry import pools
from poolbench.runner.cell_record import CellRecord
from poolbench.runner.trained import cell_data, cell_weights

DEFAULT_SHOWN = 4


def load_cell(
    cell: Cell, record: CellRecord, numbers: Sequence[int], limit: int, location: DataLocation, device: str
) -> Subject:
    """Return the network of a finished cell with its test images.

    ``numbers`` are those of the test images to be shown; without any, they are the first image of each of the first
    four classes. Numbers are measured on at most ``limit`` test images, drawn with a fixed seed. Raises UsageError for
    a test image that does not exist and for damaged weights, MissingData without the data set.
    """
    data = cell_data(cell, location, device)
    network = filled(build_model(cell, data, device), cell_weights(record))
    chosen = list(numbers) or _first_of_classes(data.test.labels)
    for number in chosen:
        if not 0 <= number < len(data.test):
            raise UsageError(f"there is no test image {number}; give --image 0 to {len(data.test) - 1}")
    shown = tuple(
        Shown(
            f"test image {number}",
            as_input(data.test.images[number : number + 1], cell.train.mask)[0],
            int(data.test.labels[number]),
        )
        for number in chosen
    )
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:limit].sort().values
    measured = data.test.take(order.to(data.test.labels.device))
    names = tuple(f"test image {number}" for number in order.tolist())
    return Subject(
        name=f"cell {cell.id[:8]}",
        description=cell.label,
        networks={AS_IT_IS: network},
        weights=f"of cell {cell.id}",
        is_untrained=False,
        classes=data.classes,
        shown=shown,
        images=measured.images,
        names=names,
        labels=measured.labels,
        source=f"the {cell.split} images of {data.name}",
        mask=cell.train.mask,
    )


def cell_with_pools(
    subject: Subject, cell: Cell, record: CellRecord, names: Sequence[str], location: DataLocation
) -> Subject:
    """Return the subject of a cell with its network built with these pools, too, and the same weights.

    Parameters of a pool that learns are those it starts with. Raises UsageError for a pool that does not exist or
    whose network does not take the weights.
    """
    device = str(subject.device)
    data, state = cell_data(cell, location, device), cell_weights(record)
    networks = dict(subject.networks)
    for name in names:
        pool = pools.parse(name)
        if pool_class(pool.name).keeps_size:
            raise UsageError(f"pool '{name}' does not subsample, so its maps cannot be compared; leave it out")
        networks[name] = filled(build_model(replace(cell, pool=pool), data, device), state)
    return replace(subject, networks=networks)


def filled(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Return a network in eval mode with the weights of ``state``; the parameters of its pools may be absent.

    Raises UsageError if other weights are absent or do not fit.
    """
    own, pooling = network.state_dict(), pooling_paths(network)
    for key, value in own.items():
        given = state.get(key)
        if given is not None and given.shape == value.shape:
            continue
        if key.rpartition(".")[0] not in pooling:
            raise UsageError(
                f"the weights of the cell do not fit at '{key}'; leave this pool out, or run the cell again"
            )
    network.load_state_dict(
        {key: state[key] for key, value in own.items() if _fits(state.get(key), value)}, strict=False
    )
    return network.eval().requires_grad_(False)


def _fits(given: Tensor | None, value: Tensor) -> bool:
    return given is not None and given.shape == value.shape


def _first_of_classes(labels: Tensor) -> list[int]:
    classes = labels.unique()[:DEFAULT_SHOWN]
    return [int((labels == label).nonzero()[0]) for label in classes]
