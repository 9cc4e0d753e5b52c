"""Accuracy and consistency of a classifier on rotated images, by angle."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd
import torch
from torch import Tensor


def decisions_by_angle(
    decisions: Tensor,
    labels: Tensor,
    angles: Sequence[float],
    classes: Sequence[str],
    merged: Collection[int] = (),
) -> pd.DataFrame:
    """Summarise predicted classes (angles, n) of images with labels (n,): one row per class and angle, in degrees.

    Columns: angle, class ("all", then each class with images), n, accuracy, consistency, worst.
    ``consistency``: share of images with the same prediction as at the first angle. ``worst``: share of
    images classified correctly at every angle up to this distance from the first, on both sides; at 180
    degrees this is the worst-case accuracy over all angles. Predictions and labels among ``merged`` classes
    count as equal (6 and 9 in MNIST are each other's half turn); their rows remain separate.
    """
    decisions, labels = decisions.cpu(), labels.cpu()
    correct, same = decisions == labels, decisions == decisions[:1]
    if merged:
        group = torch.tensor(sorted(merged))
        correct |= torch.isin(decisions, group) & torch.isin(labels, group)
        same |= torch.isin(decisions, group) & torch.isin(decisions[:1], group)
    distances = [abs((angle - angles[0] + 180) % 360 - 180) for angle in angles]
    groups = [("all", torch.ones_like(labels, dtype=torch.bool))]
    groups += [(name, labels == index) for index, name in enumerate(classes)]
    rows = []
    for name, members in groups:
        if not members.any():
            continue
        for index, angle in enumerate(angles):
            within = torch.tensor([distance <= distances[index] + 1e-6 for distance in distances])
            shares = (correct[index], same[index], correct[within].all(dim=0))
            accuracy, consistency, worst = (float(share[members].double().mean()) for share in shares)
            rows.append((float(angle), name, int(members.sum()), accuracy, consistency, worst))
    return pd.DataFrame(rows, columns=["angle", "class", "n", "accuracy", "consistency", "worst"])
