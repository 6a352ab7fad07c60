"""Metrics of test-time adaptation: errors over a stream of test batches, against those of the source model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
NAN = float("nan")


def stream_metrics(
    accuracy: Array,
    counts: Array,
    *,
    before: Array | None = None,
    source_after: float = NAN,
    source_before: float = NAN,
) -> Mapping[str, Any]:
    """What a record stores of a stream beside the accuracies of its segments.

    Args:
        accuracy: Of the answers, by segment (or by domain where a segment mixes them), ``(S,)``.
        counts: Images of each, ``(S,)``.
        before: Accuracy of the source model on the same images, ``(S,)``; None where it is not known.
        source_after: Accuracy on test images of the source after the stream.
        source_before: The same before it.

    Returns:
        ``error``, the plain mean over segments (what papers report), and ``errors``, one for each;
        ``error_images`` over all images; ``source_error``, that of the source model, and ``source_gain``, what the
        error is less than that; ``source_forgetting``, accuracy on the source before minus after. Fractions.
    """
    errors = 1 - np.asarray(accuracy, dtype=np.float64)
    n = np.asarray(counts, dtype=np.float64)
    own = float((1 - np.asarray(before, dtype=np.float64)).mean()) if before is not None else NAN
    error = float(errors.mean())
    return {
        "error": error,
        "errors": errors,
        "error_images": float((errors * n).sum() / n.sum()),
        "source_error": own,
        "source_gain": own - error,
        "source_forgetting": source_before - source_after,
    }
