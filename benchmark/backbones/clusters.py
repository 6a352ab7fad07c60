"""Centres of features by k-means, as scikit-learn finds them.

Shapes: n images, D width of features, K centres.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k_means(features: Tensor, count: int, *, seed: int = 0, starts: int = 10) -> tuple[Tensor, Tensor]:
    """Centres of the best of several runs of k-means++ and Lloyd's algorithm, on the CPU.

    Args:
        features: ``(n, D)``, n of at least 1.
        count: Centres that are wanted; of fewer different rows there are fewer.
        seed: Of the starts; torch's random state is not touched.
        starts: Runs; scikit-learn's own default has changed from 10 to 1 for k-means++.

    Returns:
        Centres ``(K, D)`` in the precision of the features, and the centre of each row, int64 ``(n,)``.
    """
    from sklearn.cluster import KMeans  # type: ignore[import-untyped]  # it takes a second

    rows = features.detach().double().cpu()
    different = len(torch.unique(rows, dim=0))
    found = KMeans(min(count, different), n_init=starts, random_state=seed).fit(rows.numpy())
    centres = torch.from_numpy(found.cluster_centers_).to(features)
    return centres, torch.from_numpy(found.labels_).long().to(features.device)
