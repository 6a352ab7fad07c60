"""What a record is: typed structs that decode and check it, and the JSON Schema made of them.

Fractions are in [0, 1], times in seconds, sizes in bytes; None (null) means undefined or not measured. No number is
NaN, infinite or so large that a mean or a variance of it would be: whatever is a `Record` can be put into a table.
A record is read by attribute, ``record.scenario.name``, or by key, ``record["scenario"]["name"]``, as its file is.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

SCHEMA = 4
LISTS = frozenset(
    {"avg_acc", "bleus", "domain_acc", "final_accs", "forgetting_curve", "seen_acc", "task_avg_acc", "transfer_accs"}
    | {"errors", "unseen_accs", "whole_accs"}
)
"""Metrics with one value per experience or test set; every other metric is one number."""

_LONG = 2**63
_LARGE = 1e100  # its square is a number
_HASH = r"^[0-9a-f]{64}$"
_HASH_OR_NOTHING: dict[str, Any] = {"pattern": r"^([0-9a-f]{64})?$", "max_length": 64}


def _text(description: str, **rules: Any) -> Any:
    return Meta(description=description, **rules)


Integer = Annotated[int, Meta(ge=-_LONG, le=_LONG - 1)]
Count = Annotated[int, Meta(ge=0, le=_LONG - 1)]
Number = Annotated[float, Meta(ge=-_LARGE, le=_LARGE)]
Seconds = Annotated[float, Meta(ge=0, le=_LARGE)]
Share = Annotated[float, Meta(ge=0, le=1)]
Sha256 = Annotated[str, Meta(pattern=_HASH, max_length=64)]
Metric = Integer | Number | list[Number | None] | None
_Labelled = Literal["last", "source-validation", "target-oracle"]
_Unlabelled = Literal["entropy", "snd", "mano", "mixval", "iwv", "dev", "circular"]
_Scalar = bool | int | float | str | None
_Item = _Scalar | list[_Scalar] | dict[str, _Scalar]
Option = _Scalar | list[_Item] | dict[str, _Item]
Options = dict[str, Option]


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of keys."""

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None


class Experience(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was trained on in one step of the stream: classes and numbers of samples."""

    classes: list[Integer]
    domain: str | None
    train: Count
    test: Count
    target: Annotated[Count | None, _text("Unlabelled target samples.")]


class TestSet(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column of accuracy."""

    name: str
    further: Annotated[bool, _text("Not the test set of an experience.")]


class Scenario(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The data and how they were cut."""

    name: Annotated[str, _text("With its variant, e.g. split-cifar100/10x10.")]
    version: Annotated[int, _text("Different versions never share a table.", ge=-_LONG, le=_LONG - 1)]
    family: str
    family_facts: Annotated[Options | None, _text("What tables need to know of a family that is not built in.")] = None
    fingerprint: Annotated[
        str,
        _text(
            "Hash of sample ids, labels, experiences, subsets and of what was decoded; marked for re-encoded data.",
            pattern=r"^[0-9a-f]{64}(-lossy)?$",
            max_length=70,
        ),
    ]
    content: Annotated[
        str,
        _text("Hash of all that the data set decodes to; empty where it is not known.", pattern=r"^([0-9a-f]{64})?$"),
    ]
    partition: Annotated[str, _text("Which lists or cut made train and test; empty where there is one way.")]
    lock: Annotated[
        str, _text("Short name of data and split (bench lock), e.g. split-cifar100-10t:9f3c2a; empty in old records.")
    ] = ""
    num_classes: Count
    class_order: list[Integer]
    experiences: list[Experience]
    tests: Annotated[list[TestSet], _text("The columns of accuracy.")]
    transductive: Annotated[bool, _text("Target samples are the test samples.")]
    variant_option: Annotated[str, _text("Option behind the `/` of name, or empty.")]
    data_by_variant: Annotated[bool, _text("Variants read different parts of the data.")] = False
    options: Options
    notes: dict[str, str]
    distribution: Annotated[str, _text("Package and version it comes from.")]


class Method(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What learnt."""

    name: str
    recipe: str
    default_recipe: Annotated[str, _text("Shown without a suffix in tables.")] = "default"
    uses: Annotated[list[str], _text("What it declared that it uses.")]
    control: Annotated[bool, _text("A yardstick that every table shows.")]
    stream: Literal["sequential", "joint", "oracle"]
    distribution: Annotated[str, _text("Package and version it comes from.")]
    paper: str = ""


class Identity(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which arithmetic ran."""

    engine: Annotated[
        int,
        _text("Number of the engine's arithmetic; 0 in records of schema 1 and 2 (code: hash of bytes).", ge=0),
    ]
    code: Annotated[str, _text("Hash of the syntax trees of the method's modules.", pattern=_HASH, max_length=64)]


class Backbone(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pretrained weights."""

    name: Annotated[str, _text("custom:FILE-HASH for weights that the user brought.")]
    sha256: Annotated[str, _text("Hash of the file; empty where there is no pretrained model.", **_HASH_OR_NOTHING)]
    image_name: Annotated[
        str, _text("Weights that see the images: the same name, or that of a backbone it shares its image tower with.")
    ]
    image_sha256: Annotated[str, _text("Hash of their file, likewise.", **_HASH_OR_NOTHING)]
    own_weights: Annotated[bool, _text("The user brought the file; nothing but its hash vouches for it.")]
    parameters: Count
    architecture: Annotated[str, _text("What --backbone named, where the user brought the weights.")] = ""


class Shortened(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many samples the method read in part only, e.g. texts longer than the model takes."""

    train: Annotated[list[Count], _text("Of each finished experience.")]
    test: Annotated[list[Count | None], _text("Of each test set; null: it was not shown yet.")]


class Inputs(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What samples went through on their way into the model."""

    kind: Literal["image", "text"]
    facts: Annotated[Options, _text("Of images: preset, size in pixels, normalize, mean and std per channel.")]
    shortened: Annotated[Shortened | None, _text("Where the method can tell.")] = None


class Groups(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options by the part that reads them."""

    scenario: Options
    method: Options
    engine: Options


class Effective(Groups, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every value that can change a number, by group."""

    derived: Annotated[Options, _text("What the method computed from its options.")] = {}


class Config(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options: asked for, in force, and what the track alone would give."""

    given: Annotated[Options, _text("What the user set explicitly, by full key.")]
    effective: Effective
    track: Annotated[
        Groups,
        _text("Values that track and recipe give without any setting of the user; absent where it is not known."),
    ]
    origin: Annotated[dict[str, str], _text("Where each value came from.")]


class Selection(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which epoch was kept."""

    rule: _Labelled | _Unlabelled
    chosen: Annotated[
        list[Count | None],
        _text("Epoch kept per experience, from 0; null where there was nothing to choose."),
    ]
    scores: Annotated[
        list[list[Number | None]],
        _text(
            "Per experience the score after each epoch, more is better: the accuracy on the selection samples, or what "
            "the rule computes without labels of the target; null: nearly all predictions were one class."
        ),
    ]
    facts: Annotated[Options, _text("What must be known of the scores, e.g. how many target images they are of.")]


class Seeds(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of random numbers."""

    seed: Integer
    class_order: Integer
    init: Integer
    data: Integer


class Cost(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it took, whatever the machine."""

    params_total: Count | None
    params_trainable: Count | None
    params_trainable_per_experience: list[Count | None]
    params_added: Integer | None
    flops_forward: Count | None
    macs_forward: Count | Seconds | None
    flops_train_step: Count | None
    storage_bytes: list[Count | None]


class Timing(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it took on this machine."""

    data_seconds: Seconds
    train_seconds: list[Seconds]
    eval_seconds: list[Seconds]
    total_seconds: Seconds
    peak_memory_bytes: Count | None
    throughput_images_per_second: Seconds | None
    resumed: Annotated[int, _text("Times it went on after a stop.", ge=0, le=_LONG - 1)]


class PredictionsFile(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file of predictions beside the record."""

    file: Annotated[str, _text("Its name, without a folder.", pattern=r"^[0-9A-Za-z._-]+\.parquet(?!\n)$")]
    rows: Count
    sha256: Sha256


class ModelFile(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file of the trained method beside the record (``engine.save_model``)."""

    file: Annotated[str, _text("Its name, without a folder.", pattern=r"^[0-9A-Za-z._-]+\.safetensors(?!\n)$")]
    bytes: Count
    sha256: Sha256


class Provenance(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the numbers come from."""

    command: Annotated[str, _text("What was typed; an absolute path from the current folder on, or its last part.")]
    date: str
    python: str
    platform: str
    packages: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    device: str
    threads: Count
    deterministic: bool

    def __post_init__(self) -> None:
        """Checks that a shell can read the command."""
        if any(char in self.command for char in "'\"\\"):  # anything else is read, and asking takes long
            try:
                shlex.split(self.command)
            except ValueError as error:
                raise ValueError(f"command: {error}") from None


class MetricFacts(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The column of a metric."""

    heading: str
    percent: Annotated[bool, _text("A fraction that is shown in percent.")]


class Record(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run: what was asked for, what ran, and every accuracy."""

    schema: Annotated[Literal[4], _text("Version of this layout.")]
    run_id: Annotated[str, _text("Hash of all that decides.", pattern=r"^[0-9a-f]{16}$", max_length=16)]
    status: Literal["completed", "interrupted", "failed"]
    error: Annotated[str | None, _text("Why the run was interrupted or failed; null when it was completed.")] = None
    track: str
    scenario: Scenario
    method: Method
    identity: Identity
    backbone: Backbone
    inputs: Inputs
    config: Config
    selection: Selection
    seeds: Seeds
    evaluated_on: Literal["test", "validation"]
    accuracy: Annotated[
        list[list[Share | None]],
        _text(
            "R (T, E): row = time, column = test set; null where not evaluated. BLEU, a fraction, of generated texts."
        ),
    ]
    counts: Annotated[list[Count], _text("Test samples per column.")]
    baseline: Annotated[list[Share | None] | None, _text("Accuracy of the untrained model, where it means something.")]
    metrics: Annotated[
        dict[str, Metric] | None,
        _text("Output of benchmark.metrics.continual_metrics; null only in runs without an end."),
    ]
    metric_facts: Annotated[
        dict[str, MetricFacts], _text("What tables need of metrics that plugins brought, by name.")
    ] = {}
    cost: Cost | None
    timing: Timing
    predictions: PredictionsFile | None
    model: Annotated[ModelFile | None, _text("The trained method, where it was kept; no number depends on it.")] = None
    losses: Annotated[list[list[dict[str, Number]]], _text("Per experience, per epoch: the mean of each loss term.")]
    warnings: list[str]
    provenance: Provenance

    def __post_init__(self) -> None:
        """Checks what parts say of one another.

        Raises:
            ValueError: They contradict each other.
        """
        sets = len(self.counts)
        if len(self.scenario.tests) != sets:
            raise ValueError(f"scenario.tests has {len(self.scenario.tests)} entries, counts has {sets}")
        for time, row in enumerate(self.accuracy):
            if len(row) != sets:
                raise ValueError(f"accuracy[{time}] has {len(row)} entries, counts has {sets}")
        if self.baseline is not None and len(self.baseline) != sets:
            raise ValueError(f"baseline has {len(self.baseline)} entries, counts has {sets}")
        lists = LISTS
        if self.scenario.family_facts is not None:
            lists |= {f"{self.scenario.family_facts.get('further_mean')}s"}
        for name, value in (self.metrics or {}).items():
            if (name in lists) != isinstance(value, list):
                raise ValueError(f"metrics.{name} is {'no list' if name in lists else 'a list'}")
        if self.status == "completed":
            if self.metrics is None:
                raise ValueError("metrics is null, but status is completed")
            if not sets or len(self.accuracy) != len(self.scenario.experiences):
                raise ValueError(f"accuracy has {len(self.accuracy)} rows of {sets}, but status is completed")

    def number(self, metric: str) -> float | None:
        """A metric that is one number; None where it is not defined."""
        value = (self.metrics or {}).get(metric)
        return None if isinstance(value, list) else value

    def numbers(self, metric: str) -> list[float | None]:
        """A metric that is a list of numbers; empty where it is not defined."""
        value = (self.metrics or {}).get(metric)
        return value if isinstance(value, list) else []


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one record of the current layout, for other tools."""
    document = msgspec.json.schema(Record)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"adaptbench record, schema {SCHEMA}",
    } | (document)


def parse(content: Mapping[str, Any]) -> Record:
    """A record of the current schema from plain values.

    Raises:
        ValueError: It does not follow the schema; the message has the full key.
    """
    try:
        return msgspec.convert(content, Record)
    except msgspec.ValidationError as error:
        raise ValueError(explain(error)) from None


def plain(record: Record) -> dict[str, Any]:
    """A record as fresh dicts, lists and scalars."""
    found: dict[str, Any] = msgspec.to_builtins(record)
    return found


def explain(error: msgspec.ValidationError) -> str:
    """What is wrong with a record, the full key first."""
    what, _, where = str(error).rpartition(" - at `")
    if not what:
        return str(error)
    where = where.rstrip("`").removeprefix("$").removeprefix(".")
    return f"{where}: {what}" if where else what
