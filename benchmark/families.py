"""Families of scenarios: what a stream is, what is tested, and how it is tabulated.

One frozen record per family. The rest of the code asks the record (``family.grows``) and never compares names, so a
plugin may bring a family of its own. Everything in a record is plain data: what is not built in is kept in the
records of runs, so that their tables need no plugin. It is one file, with all the families, as names of families are
known nowhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from benchmark.errors import PluginError, did_you_mean

Board = Literal["stream", "variants", "sets", "texts", "segments"]

_STREAM_COLUMNS = {
    "final_avg_acc": "Final avg. acc. (%)",
    "final_acc": "Final acc. (%)",
    "worst_domain_acc": "Worst domain (%)",
    "avg_incremental_acc": "Avg. incr. acc. (%)",
    "forgetting": "Forgetting (points)",
    "learning_acc": "Learning acc. (%)",
    "task_final_avg_acc": "Final avg. acc., task known (%)",
}
_STREAM_CAPTION = (
    "Final avg. acc.: mean over test sets after the last experience; forgetting: Chaudhry et al. (2018), may be "
    "negative; accuracies in percent."
)
_NAMED_COLUMNS = {
    "whole_acc": "Avg (%)",
    "unseen_acc": "Transfer (%)",
    "final_avg_acc": "Last (%)",
    "forgetting": "Forgetting (points)",
    "task_final_avg_acc": "Last, task known (%)",
}
_NAMED_CAPTION = (
    "Every test set is predicted after every experience. Avg: mean over all experiences and test sets; transfer: mean "
    "over the test sets from the second on of their accuracies before their experience was trained; last: mean over "
    "test sets after the last experience (Zheng et al., 2023); in percent."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One family.

    Attributes:
        name: Name in specs and records.
        summary: One line.
        stream: Whether experiences follow one another, so that joint training is an upper bound.
        grows: Whether experiences bring new classes: a class cannot be predicted before it was seen.
        domains: Whether every experience is a domain of its own that has all classes.
        mixed: Whether classes come and go: experiences share classes and samples, and there is one test set.
        shift: Whether the test images of an experience are of a domain that has no labelled training images.
        unlabelled: Whether unlabelled samples come beside the labelled ones; with a `shift`, of that domain.
        unknown: Whether some test images are of classes that are not trained and have no name: the last label of the
            scenario stands for all of them. A method may answer with one column of logits more than there are classes;
            of one that does not, `benchmark.run.unknown` tells which images it does not know.
        task_id: Whether a test image comes with its experience: it is classified among the classes of that one.
        names: Where the names of all classes are known from the start, whose names a test image is classified among:
            those of its ``own`` experience, or of ``all``. Every test set is then predicted after every experience,
            before it was trained too, by `benchmark.api.Method.predict_named`: names come at test time, and nothing
            else of later experiences is shown. Empty: a class cannot be predicted before it was seen.
        generates: Whether methods write texts (`benchmark.api.Method.generate`), which are compared with the references
            of the samples; else they classify. What stands in the place of accuracy is the corpus BLEU, a fraction.
        adapts: Whether a source model meets a stream of unlabelled test batches (`benchmark.scenario.TestStream`), each
            of which it answers and may adapt to (`benchmark.test_time.TestTimeMethod`).
        shots: Whether every class has the same small number of training images, drawn by the seed.
        collection: Whether every variant is a data set of its own, whose published lists say what is trained and
            tested: a class may have no image in either, and one table holds all of them. Where the notes of scenarios
            name a ``group``, the mean of the means of the groups ranks the rows.
        unseen: What the further test sets hold that is never trained: other ``classes`` of the same data, as many as
            are trained; or other ``data sets``, whose classes may have the same names.
        test: What the test set of an experience is called where it has no number: ``target``; empty in streams.
        own: Metric under which the final accuracy on the test sets of the experiences is stored once more.
        further: The same for further test sets, by their names.
        further_mean: Metric of the mean over all further test sets; with an ``s`` behind, the list of them.
        harmonic: Whether the harmonic mean of `own` and the first of `further` is stored as ``harmonic_mean``.
        board: What the columns of its table are: metrics of a ``stream``, ``variants`` of a scenario (with their
            mean), test ``sets``, scores of generated ``texts``, or ``segments`` of a test stream.
        headline: Metric that ranks the rows.
        columns: Metrics that are columns, with their headings; besides the variants, if these are columns.
        heading: Heading of a variant's column, ``{}`` is the variant.
        averaged: Whether the mean over the variants is the headline; else it is the last column.
        of: What the headline is called in captions.
        caption: What the columns are.
    """

    name: str
    summary: str
    stream: bool = False
    grows: bool = False
    domains: bool = False
    mixed: bool = False
    shift: bool = False
    unlabelled: bool = False
    unknown: bool = False
    task_id: bool = False
    names: Literal["", "own", "all"] = ""
    generates: bool = False
    adapts: bool = False
    shots: bool = False
    collection: bool = False
    unseen: Literal["", "classes", "data sets"] = ""
    test: str = ""
    own: str = ""
    further: Mapping[str, str] = field(default_factory=dict)
    further_mean: str = ""
    harmonic: bool = False
    board: Board = "stream"
    headline: str = "final_avg_acc"
    columns: Mapping[str, str] = field(default_factory=lambda: dict(_STREAM_COLUMNS))
    heading: str = "{}"
    averaged: bool = False
    of: str = "the final average accuracy"
    caption: str = _STREAM_CAPTION

    def __post_init__(self) -> None:
        """Checks what tables rely on.

        Raises:
            ValueError: A value is not known, or two do not fit.
        """
        if self.board not in get_args(Board):
            raise ValueError(f"board: {self.board!r} is unknown; use one of {', '.join(get_args(Board))}")
        if self.board == "sets" and self.headline not in self.columns:
            raise ValueError(f"columns: the headline {self.headline!r} is not among them")
        if self.names not in ("", "own", "all"):
            raise ValueError(f"names: {self.names!r} is unknown; use own, all or nothing")
        if self.names and not (self.grows and self.stream):
            raise ValueError("names: only a stream whose classes grow has names of later experiences")
        if self.generates != (self.board == "texts"):
            raise ValueError("board: generated texts have a board of their own, `texts`, and only they")
        if self.adapts != (self.board == "segments"):
            raise ValueError("board: test streams have a board of their own, `segments`, and only they")
        if self.harmonic and not (self.own and self.further):
            raise ValueError("harmonic: needs `own` and `further`")

    @property
    def kind(self) -> str:
        """Families of one kind share their yardsticks: all streams, and each of the others."""
        return "stream" if self.board == "stream" else self.name

    @property
    def waits(self) -> bool:
        """Whether a class cannot be predicted before it was seen."""
        return self.grows and not self.names


_BUILT_IN = (
    Family(name="class-il", summary="every experience brings new classes", stream=True, grows=True),
    Family(name="domain-il", summary="the same classes in one domain after another", stream=True, domains=True),
    Family(
        name="task-il",
        summary="every experience brings new classes, and a test image comes with its experience",
        stream=True,
        grows=True,
        task_id=True,
    ),
    Family(
        name="named-task-il",
        summary="one data set after another; all are tested at any time, each among its own names",
        stream=True,
        grows=True,
        names="own",
        headline="whole_acc",
        columns=_NAMED_COLUMNS,
        of="the average",
        caption=f"{_NAMED_CAPTION} A test image is classified among the names of its own data set.",
    ),
    Family(
        name="named-class-il",
        summary="one data set after another; all are tested at any time, among the names of all of them",
        stream=True,
        grows=True,
        names="all",
        headline="whole_acc",
        columns=_NAMED_COLUMNS,
        of="the average",
        caption=f"{_NAMED_CAPTION} A test image is classified among the names of all data sets, trained or not.",
    ),
    Family(
        name="blurry-il",
        summary="classes come and go in many short experiences, one test set of all of them",
        stream=True,
        mixed=True,
        headline="final_acc",
        columns={"final_acc": "Final acc. (%)", "avg_incremental_acc": "Avg. over time (%)"},
        of="the final accuracy",
        caption="Final acc.: on all classes after the last experience; avg. over time: mean of the accuracies on all "
        "classes after every experience, of which some were not seen yet; in percent.",
    ),
    Family(
        name="uda",
        summary="labelled source, unlabelled target",
        shift=True,
        unlabelled=True,
        test="target",
        own="target_acc",
        further={"source": "source_acc"},
        board="variants",
        headline="target_acc",
        columns={"mean_class_acc": "Per-class mean (%)", "source_acc": "Source kept (%)"},
        averaged=True,
        of="the mean",
        caption="Accuracy on target test images for each source-target pair, in percent. Mean: plain mean of the "
        "pairs. Per-class mean: mean over classes of the accuracy within the class; source kept: accuracy on source "
        "test images after adaptation; both averaged over the pairs.",
    ),
    Family(
        name="open-set",
        summary="labelled source, unlabelled target with classes that the source has not",
        shift=True,
        unlabelled=True,
        unknown=True,
        test="target",
        own="target_acc",
        further={"source": "source_acc"},
        board="variants",
        headline="h_score",
        columns={
            "known_acc": "Known (%)",
            "unknown_acc": "Unknown (%)",
            "target_acc": "All images (%)",
            "source_acc": "Source kept (%)",
        },
        averaged=True,
        of="the mean",
        caption="H-score on target test images for each source-target pair, in percent: harmonic mean of known (OS*: "
        "mean over the classes of the source of the accuracy within the class) and unknown (UNK: accuracy on images of "
        "all other classes). Mean: plain mean of the pairs; what stands behind it is averaged over the pairs. A method "
        "without an answer `unknown` does not know the images whose entropy lies above the middle of the centres of "
        "2-means over all test images (tim-learn/SHOT). Source kept: accuracy on source test images after adaptation.",
    ),
    Family(
        name="dg",
        summary="several source domains, tested on one that was held out",
        shift=True,
        test="target",
        own="target_acc",
        further={"source": "source_acc"},
        board="variants",
        headline="target_acc",
        columns={"source_acc": "Sources (%)"},
        averaged=True,
        of="the mean",
        caption="Accuracy on the domain that was held out, one column per domain, in percent. Mean: plain mean of the "
        "domains. Sources: accuracy on test images of the other domains, averaged.",
    ),
    Family(
        name="few-shot",
        summary="a few labelled images of every class",
        shots=True,
        test="test",
        board="variants",
        headline="final_acc",
        columns={},
        heading="{} shots",
        of="the last column",
        caption="Accuracy on the full test set after training on that many images per class, in percent.",
    ),
    Family(
        name="collection",
        summary="one labelled training set, as published, of every data set of a collection",
        collection=True,
        test="test",
        board="variants",
        headline="final_acc",
        columns={},
        averaged=True,
        of="the mean",
        caption="Accuracy on the test set of each data set after training on its own training set, in percent. Mean: "
        "plain mean of the data sets; mean of groups: mean of the means of their groups.",
    ),
    Family(
        name="few-labels",
        summary="a few labelled samples in all, the same number of every class, beside unlabelled ones",
        unlabelled=True,
        shots=True,
        test="test",
        board="variants",
        headline="final_acc",
        columns={},
        heading="{} labels",
        of="the last column",
        caption="Accuracy on the full test set after training on that many labelled samples in all, in percent.",
    ),
    Family(
        name="base-to-new",
        summary="half of the classes is trained, the other half known by name",
        unseen="classes",
        test="base",
        own="base_acc",
        further={"new": "new_acc"},
        harmonic=True,
        board="sets",
        headline="harmonic_mean",
        columns={"base_acc": "Base (%)", "new_acc": "New (%)", "harmonic_mean": "H (%)"},
        of="H",
        caption="Base: accuracy on base classes among base names; new: on classes that were not trained among "
        "their own names; H: harmonic mean of the averaged base and new accuracies, ± over the H of single seeds; "
        "all in percent.",
    ),
    Family(
        name="cross-dataset",
        summary="trained on one data set, tested on others by the names of their classes",
        unseen="data sets",
        test="source",
        own="source_acc",
        further_mean="transfer_acc",
        board="sets",
        headline="transfer_acc",
        columns={"source_acc": "Trained (%)", "transfer_acc": "Mean (%)"},
        of="the mean",
        caption="Accuracy on the data set that was trained and, among their own names and with nothing retrained, on "
        "others; mean: of the others; all in percent.",
    ),
    Family(
        name="tta",
        summary="a source model meets an unlabelled stream of test batches, and may adapt to each",
        adapts=True,
        own="stream_acc",
        further={"source": "source_acc"},
        board="segments",
        headline="stream_acc",
        columns={
            "stream_acc": "Accuracy (%)",
            "error": "Error (%)",
            "error_images": "Error over images (%)",
            "source_gain": "Less error than the source (points)",
            "source_acc": "Source kept (%)",
            "source_forgetting": "Source forgotten (points)",
        },
        of="the accuracy over the stream",
        caption="Test-time adaptation: every batch of the stream is answered once, and no answer changes afterwards. "
        "Accuracy and error: mean over the segments of the stream; over images: of all images together. Less error "
        "than the source: error of the model before the stream, on the same images, minus that of the row. Source "
        "kept: accuracy on test images of the source after the stream; forgotten: before minus after. The columns "
        "behind are errors of segments, in their order; in percent.",
    ),
    Family(
        name="generation",
        summary="texts are written about inputs, e.g. about tables",
        stream=True,
        generates=True,
        board="texts",
        headline="bleu",
        columns={
            "bleu": "BLEU",
            "chrf": "chrF",
            "rouge_l": "ROUGE-L",
            "slot_error": "Slot error (%)",
            "slot_missing": "Missing (%)",
            "slot_added": "Added (%)",
            "avg_incremental_bleu": "Avg. incr. BLEU",
            "forgetting": "Forgetting (points)",
        },
        of="BLEU",
        caption="Scores of generated texts against all references of their inputs, after the last experience, as 100 "
        "times the stored fraction; with several test sets the mean over them. Slot error: values of the input table "
        "that the text lacks (missing) and values of other tables that it tells (added), per value of the input; the "
        "lower the better.",
    ),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _BUILT_IN}
"""The built-in families by name."""
REGISTERED: dict[str, Family] = {}
"""Families of plugins by name, added by `register`."""


def get(name: str) -> Family:
    """The family of a name.

    Raises:
        UsageError: There is none.
    """
    found = FAMILIES.get(name) or REGISTERED.get(name)
    if found is None:
        raise did_you_mean("family", name, [*FAMILIES, *REGISTERED])
    return found


def register(family: Family, *, owner: str) -> None:
    """Adds the family of a plugin; once more the same does nothing.

    Args:
        family: The record.
        owner: Who brings it, for messages.

    Raises:
        PluginError: The name is taken by another family.
    """
    if FAMILIES.get(family.name, REGISTERED.get(family.name, family)) != family:
        raise PluginError(
            f"family `{family.name}` of {owner} is already defined otherwise", hint="give it another name"
        )
    if family.name not in FAMILIES:
        REGISTERED[family.name] = family


def facts(name: str) -> dict[str, Any] | None:
    """What a record must keep of a family for its tables: nothing of those built in."""
    return None if name in FAMILIES else _plain(get(name))


def of_record(name: str, kept: Mapping[str, Any] | None) -> Family:
    """The family of a record, from the record alone: tables do not depend on what is installed.

    Args:
        name: ``family`` of its scenario.
        kept: ``family_facts`` of its scenario. Where there are none of a family that is not built in, that family is
            tabulated as a stream.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    unknown = Family(name=name, summary="not described in its records")
    if not isinstance(kept, Mapping):
        return unknown
    default = _plain(unknown)
    known = {key: kept[key] for key in default if key != "name" and _alike(kept.get(key), default[key])}
    try:
        return Family(**{**default, **known})
    except ValueError:
        return unknown


def _alike(value: Any, default: Any) -> bool:
    """Whether a value read from a record can stand for one of ours; mappings hold texts only."""
    if type(value) is not type(default):
        return False
    return not isinstance(value, dict) or all(type(text) is str for text in value.values())


def _plain(family: Family) -> dict[str, Any]:
    values = {part.name: getattr(family, part.name) for part in dataclasses.fields(family)}
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
