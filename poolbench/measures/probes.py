"""Linear probes: is the class already readable from the maps of a stage?"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

PENALTIES = np.logspace(-3, 5, 9)


GRID = 2


def gridded(maps: Tensor) -> Tensor:
    """Return each map averaged to 2x2 positions: (n, c, h, w) -> (n, 4c).

    The coarse layout stays, so that early stages, whose units are few and local, are not read by their amounts alone.
    """
    return F.adaptive_avg_pool2d(maps, GRID).flatten(1)


def probe_accuracy(features: Tensor, labels: Tensor, new_features: Tensor, new_labels: Tensor) -> float:
    """Return the accuracy on new images of a linear classifier fitted to features (n, k) and labels (n,).

    Ridge regression on standardised features, its penalty chosen by leave-one-out (Alain and Bengio 2017 fit their
    probes by gradient descent; this one has a closed form, so that its result depends on no schedule).
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    probe = RidgeClassifierCV(PENALTIES)
    probe.fit(scaler.fit_transform(features.double().cpu().numpy()), labels.cpu().numpy())
    decisions = probe.predict(scaler.transform(new_features.double().cpu().numpy()))
    return float((decisions == new_labels.cpu().numpy()).mean())
