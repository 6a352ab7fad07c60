"""How methods of test-time adaptation train their source model on a track: the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping

SOURCE: Mapping[str, Mapping[str, object]] = {
    "nano": {"epochs": 10, "batch_size": 64, "lr": 0.5},
    "mini": {"epochs": 10, "batch_size": 64, "lr": 0.01},
}
"""How the source is trained on a track, for ``tracks`` of a `MethodSpec`: the same for all methods."""
RULE = (
    "epochs, batch_size, lr: the same for all methods of the family; nano, lr: results/search.py with `source`, best "
    "on corruptions that are not reported"
)
ADAPTING = f"{RULE}; nano, adapt_lr: likewise, on a stream of such corruptions"
"""The same for those that learn while they answer."""
