"""Options of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from benchmark.config import Range, check_ranges

UNSEEN = (
    "checkpoint_seconds",
    "workers",
    "decoded_cache_gb",
    "feature_cache_gb",
    "activation_checkpointing",
    "save_model",
    "save_choices",
)
"""Options that no result depends on; they are no part of the identity of a run."""

LATER = ("image_size", "precision", "compile", "deterministic", "micro_batch", "batch_fallback", "ranks")
"""Options that came later; at their default they are no part of the identity of a run, so that it keeps its name."""

Precision = Literal["float32", "tf32", "bf16", "fp16"]
Select = Literal[
    "last",
    "source-validation",
    "target-oracle",
    "entropy",
    "snd",
    "mano",
    "mixval",
    "iwv",
    "dev",
    "circular",
]

BY_TARGET = ("entropy", "snd", "mano", "mixval")
BY_BOTH = ("iwv", "dev", "circular")
TARGET_FREE = (*BY_TARGET, *BY_BOTH)
"""Rules of `select` that read target images without labels; `BY_BOTH` read labelled source images, too."""

HELD_OUT = ("source-validation", "iwv", "dev")
"""Rules of `select` that need labelled samples which are not trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Options of the engine, ``--set engine.NAME=VALUE``.

    Attributes:
        eval_batch_size: Test images per forward pass.
        eval_order: ``shuffled`` mixes the test images of all experiences in one fixed order;
            ``natural`` evaluates one test set after the other, in the order of their files; ``by-experience``
            likewise, and no batch holds images of two test sets, as in most published code. Only methods that
            use ``test_batch`` can tell the difference.
        save_logits: Whether the predictions file keeps the logits.
        save_model: Whether the trained method is kept beside the record, for ``bench predict``: what differs from the
            pretrained model. Results are the same.
        save_choices: Whether the predictions file keeps which prompts (or other parts) each test sample has chosen, for
            ``bench plot prompt-observatory``, of methods that can tell. Results are the same.
        checkpoint_seconds: Least time between two checkpoints in the middle of an experience.
        select: Which epoch of an experience is kept. ``last``; ``source-validation``: the best on a
            tenth of the labelled training images, which is held out (or on the validation images that
            the scenario brings); ``target-oracle``: the best on the target's test images, which no
            one could do without their labels: an upper bound, and marked in tables. Without a target label, by
            `benchmark.run.target_free`: ``entropy``, ``snd``, ``mano``, ``mixval`` read unlabelled target images,
            ``iwv``, ``dev`` and ``circular`` labelled source images, too (of the first two a tenth is held out).
        workers: Processes that decode image files ahead of training and evaluation; default: the cores that training
            leaves, and none where samples are in memory. Results are the same for any number.
        decoded_cache_gb: Gigabytes (10^9 bytes) that decoded image files may take in the cache folder, so that later
            epochs and runs need not decode them again; 0 keeps none. Results are the same.
        image_size: Side of the model's input in pixels; default: the checkpoint's own. Position tables of vision
            transformers are resampled as timm does, and images are prepared for this size.
        feature_cache_gb: Gigabytes (10^9 bytes) that features of frozen networks may take in the cache folder, so that
            later runs, also of other methods, need not compute them again; 0 keeps none. Results are the same.
        task_known: Runs a stream whose classes grow as task-incremental: a test sample is classified among the
            classes of its experience, and methods that use ``task_id`` are told it.
        precision: In which numbers networks compute. ``float32``; ``tf32``: products of float32 in TensorFloat-32, on
            CUDA; ``bf16``, ``fp16``: torch's autocast around training steps, predictions and features, of ``fp16``
            with scaled losses. Weights, optimisers and closed forms stay float32.
        compile: Whether torch.compile takes the blocks of a ViT.
        deterministic: Whether torch takes deterministic algorithms where it has them. Without, a GPU is faster, a run
            cannot be repeated bit for bit, and tables say so.
        micro_batch: Largest number of samples whose gradients are made at once; a batch is trained on in so many parts
            as that needs, whose gradients are added. 0: the whole batch at once. Only of methods whose loss is a mean
            over samples (`benchmark.api.Method.coupled`).
        activation_checkpointing: Whether the blocks of a ViT are computed again for their gradients instead of kept in
            memory. Results are the same, a step takes about a third longer.
        batch_fallback: Whether a batch that does not fit the memory is trained on in parts as with ``micro_batch``,
            each time half as large until they fit; the record says so.
        ranks: Processes that share every batch, as many as ``torchrun`` has started.
    """

    eval_batch_size: Annotated[int, Range(min=1)] = 256
    eval_order: Literal["shuffled", "natural", "by-experience"] = "shuffled"
    save_logits: bool = False
    save_model: bool = False
    save_choices: bool = False
    checkpoint_seconds: Annotated[float, Range(min=0)] = 30.0
    select: Select = "last"
    task_known: bool = False
    workers: Annotated[int | None, Range(min=0, max=256)] = None
    decoded_cache_gb: Annotated[float, Range(min=0)] = 0.0
    image_size: Annotated[int | None, Range(min=1, max=4096)] = None
    feature_cache_gb: Annotated[float, Range(min=0)] = 2.0
    precision: Precision = "float32"
    compile: bool = False
    deterministic: bool = True
    micro_batch: Annotated[int, Range(min=0)] = 0
    activation_checkpointing: bool = False
    batch_fallback: bool = False
    ranks: Annotated[int, Range(min=1)] = 1

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ValueError: A value is out of range.
        """
        check_ranges(self)
