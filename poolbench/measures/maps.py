"""Feature maps in numbers: dead and duplicate units, effective rank, and how noisy a map looks.

All take maps (n, c, h, w): n images, c units.
"""

from __future__ import annotations

import torch
from torch import Tensor

DUPLICATE = 0.95
"""Absolute correlation from which on a unit says what an earlier one says."""
LEVELS = 8
"""Grey levels that the spatial entropy tells apart."""
SAMPLED = 20_000
"""Positions of which ranks and correlations are computed, at most."""


def dead_units(maps: Tensor) -> Tensor:
    """Return which units (c,) have one and the same value at every position of every image."""
    values = maps.transpose(0, 1).flatten(1)
    return (values.amax(1) - values.amin(1)) <= 1e-6 * values.abs().amax(1).clamp(min=1e-6)


def duplicate_units(maps: Tensor, threshold: float = DUPLICATE) -> Tensor:
    """Return which units (c,) correlate with an earlier one by more than ``threshold``, in absolute value.

    Pearson's correlation over images and positions. Dead units have none and are no duplicates.
    """
    values = _values(maps)
    centred = values - values.mean(1, keepdim=True)
    norms = centred.norm(dim=1, keepdim=True)
    alive = ~dead_units(maps)
    scaled = torch.where(alive[:, None], centred / norms.clamp(min=torch.finfo(norms.dtype).tiny), 0.0)
    similar = (scaled @ scaled.T).abs() > threshold
    return similar.tril(-1).any(1) & alive


def effective_rank(maps: Tensor) -> float:
    """Return the effective rank of the units' values: how many independent directions they use, from 1 to c.

    The exponential of the entropy of the normalised singular values (Roy and Vetterli 2007) of the matrix units x
    (images and positions), centred per unit. 0 if all units are dead.
    """
    values = _values(maps)
    centred = values - values.mean(1, keepdim=True)
    # The singular values of a wide matrix are the roots of the eigenvalues of its small Gram matrix.
    squared = torch.linalg.eigvalsh(centred @ centred.T).clamp(min=0)
    # Rounding leaves eigenvalues that are not 0.
    singular = torch.where(squared > squared.amax() * 1e-12, squared, 0.0).sqrt()
    total = float(singular.sum())
    if total == 0:
        return 0.0
    shares = singular[singular > 0] / total
    return float(torch.exp(-(shares * shares.log()).sum()))


def spatial_entropy(maps: Tensor, seed: int = 0) -> Tensor:
    """Return how noisy each unit's maps look (c,): 0 if neighbours foretell a pixel, 1 if they say nothing about it.

    The conditional entropy of a pixel's grey level given that of its right or lower neighbour (co-occurrences,
    Haralick 1973), over that of the same map with its pixels shuffled, which is white noise with the same levels. Each
    map has ``LEVELS`` levels between its own minimum and maximum, as an eye sees a picture. White noise has 1 at every
    size, but anything else looks noisier the fewer positions a map has: compare with the image averaged to that size.
    Few maps scatter around the value, also above 1. Maps without any contrast do not count; a unit without others is
    NaN, and so is a map of one pixel.
    """
    n, c, height, width = maps.shape
    flat = maps.flatten(2).double()
    low, high = flat.amin(2, keepdim=True), flat.amax(2, keepdim=True)
    contrast = (high - low).clamp(min=torch.finfo(torch.float64).tiny)
    levels = ((flat - low) / contrast * LEVELS).long().clamp(max=LEVELS - 1)
    counted = (high > low)[..., 0]
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(n, c, height * width, generator=generator).argsort(2).to(maps.device)
    seen = _neighbour_entropy(levels.view(n, c, height, width), counted)
    noise = _neighbour_entropy(levels.gather(2, order).view(n, c, height, width), counted)
    # Without any uncertainty in the shuffled map there is none in the map: NaN.
    return torch.where(noise > 0, seen / noise, torch.nan)


def _neighbour_entropy(levels: Tensor, counted: Tensor) -> Tensor:
    """Return the entropy (c,) in nats of a level given its neighbour's, over the maps (n, c) that are counted."""
    joint = torch.zeros(levels.shape[1], LEVELS, LEVELS, dtype=torch.float64, device=levels.device)
    for first, second in ((levels[..., :-1], levels[..., 1:]), (levels[..., :-1, :], levels[..., 1:, :])):
        codes = (first * LEVELS + second).flatten(2)
        weights = counted[..., None].double().expand(codes.shape)
        found = torch.zeros(levels.shape[1], LEVELS**2, dtype=torch.float64, device=levels.device)
        found.scatter_add_(1, codes.transpose(0, 1).flatten(1), weights.transpose(0, 1).flatten(1))
        joint += found.view(-1, LEVELS, LEVELS)
    # In both directions.
    joint = joint + joint.transpose(1, 2)
    joint = joint / joint.sum((1, 2), keepdim=True).clamp(min=1.0)
    return _entropy(joint.flatten(1)) - _entropy(joint.sum(2))


def _entropy(shares: Tensor) -> Tensor:
    """Return the entropy (c,) in nats of shares (c, k)."""
    return -torch.where(shares > 0, shares * shares.clamp(min=torch.finfo(shares.dtype).tiny).log(), 0.0).sum(1)


def class_separation(maps: Tensor, labels: Tensor) -> Tensor:
    """Return what part of the variance of each unit's spatial mean lies between the classes (c,), from 0 to 1.

    Eta squared (Pearson 1905) over the n images. NaN for a unit whose mean is the same for all images.
    """
    means = maps.mean((2, 3)).double()
    total = (means - means.mean(0)).square().sum(0)
    between = torch.zeros_like(total)
    for label in labels.unique():
        members = means[labels == label]
        between += len(members) * (members.mean(0) - means.mean(0)).square()
    return torch.where(total > 1e-12 * means.square().sum(0).clamp(min=1e-12), between / total, torch.nan)


def _values(maps: Tensor) -> Tensor:
    """Return the units' values (c, k) as doubles, at evenly spaced positions if there are very many."""
    values = maps.transpose(0, 1).flatten(1)
    # An odd step meets every column of maps whose width is a power of two.
    step = -(-values.shape[1] // SAMPLED) | 1 if values.shape[1] > SAMPLED else 1
    return values[:, ::step].double()
