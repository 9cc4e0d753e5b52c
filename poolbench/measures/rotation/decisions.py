"""What a classifier decides about turned images, angle by angle."""

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
    """Return one row per angle and class ("all", then each): angle, class, n, accuracy, consistency, worst.

    ``decisions`` (angles, n) about images with ``labels`` (n,); the first angle is the one that others
    are compared with. ``consistency`` is the share of images that are called the same as at that angle,
    ``worst`` the share that is right at every angle up to this far away on either side: at 180 degrees
    the accuracy in the worst case over the orbit. The classes ``merged`` count as one (6 and 9 in MNIST:
    turned by 180 degrees they are each other), though their rows stay apart.
    """
    decisions, labels = decisions.cpu(), labels.cpu()
    right, same = decisions == labels, decisions == decisions[:1]
    if merged:
        pair = torch.tensor(sorted(merged))
        right |= torch.isin(decisions, pair) & torch.isin(labels, pair)
        same |= torch.isin(decisions, pair) & torch.isin(decisions[:1], pair)
    turns = [abs((angle - angles[0] + 180) % 360 - 180) for angle in angles]
    groups = [("all", torch.ones_like(labels, dtype=torch.bool))]
    groups += [(name, labels == index) for index, name in enumerate(classes)]
    rows = []
    for name, members in groups:
        if not members.any():
            continue
        for place, angle in enumerate(angles):
            within = torch.tensor([turn <= turns[place] + 1e-6 for turn in turns])
            shares = (right[place], same[place], right[within].all(dim=0))
            accuracy, consistency, worst = (float(share[members].double().mean()) for share in shares)
            rows.append((float(angle), name, int(members.sum()), accuracy, consistency, worst))
    return pd.DataFrame(rows, columns=["angle", "class", "n", "accuracy", "consistency", "worst"])
