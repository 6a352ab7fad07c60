"""Frozen records that plugins return from their registration hooks.

Nothing here imports torch: the command line reads specs to print help. It is one file, as authors of plugins look up
all of them here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from benchmark.config import Range
from benchmark.families import FAMILIES, Family
from benchmark.guard import Guard

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from benchmark.api import Context, Method, Scenario
    from benchmark.backbones.backbone import Pretrained
    from benchmark.data import DataSet
    from benchmark.foreign import ForeignRun, SourceFile
    from benchmark.jobs import How, Job, Outcome
    from benchmark.tables import Table
    from benchmark.tracking import Tracker

__all__ = [
    "FAMILIES",
    "USES",
    "BackboneSpec",
    "ExecutorSpec",
    "ExporterSpec",
    "Family",
    "ImporterSpec",
    "MethodSpec",
    "MetricSpec",
    "PlotSpec",
    "ProtocolSpec",
    "ScenarioSpec",
]

# What a method may declare that it uses. The engine withholds the rest (`benchmark.api`), the
# record keeps the list, and the leaderboard prints it as a footnote.
USES: Mapping[str, str] = {
    "boundaries": "is told when one experience ends and the next begins, and its classes",
    "task_id": "is told the index of the experience, in training (and at test time in task-il only)",
    "num_experiences": "is told how many experiences there will be",
    "num_classes": "is told how many classes there will be in the end, and may predict unseen ones",
    "class_names": "reads the names of the classes seen so far",
    "memory": "keeps training images of past experiences",
    "validation": "reads the labelled validation images that the scenario brings, to choose its options",
    "unlabelled": "reads unlabelled target images",
    "domains": "is told the names of source and target domains, and the domain of each training image",
    "open_vocabulary": "classifies among classes it never saw, given their names at test time",
    "test_batch": "lets a prediction depend on the other images of the test batch",
    "test_stream": "lets a prediction depend on earlier test batches",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodSpec:
    """One method, as its plugin registers it.

    Attributes:
        name: Name on the command line; equal to the entry point's.
        build: ``build(config, context) -> Method``; usually the class itself.
        config: Frozen dataclass, a subclass of `benchmark.api.MethodConfig`, or of `LearnerConfig` where no images are
            read.
        summary: One line for ``bench info``.
        uses: Keys of `USES`, or a function of the config that returns them
            (a recipe may use more than the default).
        recipes: Named presets, ``{"pilot": {"lr": 0.001875}}``, selected by ``l2p@pilot``.
            A recipe lists what differs from the class defaults, and what a track would change but
            the recipe fixes.
        engine: Options of the engine that a recipe fixes, ``{"pilot": {"eval_batch_size": 16}}``: a prediction that
            depends on the test batch depends on which batches the official code makes. ``--set engine.NAME`` wins.
        default_recipe: Name under which the class defaults are known.
        tracks: Hyper-parameters per track (``nano``, ``mini``, ``paper``), applied below the
            recipe; `rule` says where they come from.
        rule: How the values in ``tracks`` were found, without test data.
        toy: Largest values of whole-number options in the toy runs of the contract, where the published
            size would take minutes or gigabytes, e.g. ``{"projection": 64}``.
        waits: How often a training step may make the host wait for a GPU (numbers read, blocking copies). State the
            reason beside it: each costs the GPU the time in which nothing is sent to it.
        sources: Where the value of a field or recipe comes from, ``{"lr": "paper, section 4"}``.
        paper: arXiv id or DOI.
        display: What people call it in tables, e.g. ``L2P``; empty: its name.
        bibtex: The BibTeX entry of its paper, for ``bench leaderboard --bib``; empty: made of `paper`.
        reference: Official repository and the commit compared with.
        control: True for the yardsticks that every table shows.
        stream: ``sequential``; ``joint`` (all training data in one experience: an upper bound of
            continual learning); or ``oracle`` (trained on the labelled target images instead of
            the source: an upper bound of adaptation).
        text: Whether it needs a backbone with a text tower (`benchmark.backbones.dual`). Without
            ``--backbone`` it is given the track's dual encoder.
        reads: What it is given: ``image`` or ``text``; scenarios of another kind are refused.
        classifies: Whether it runs where samples are classified: it implements `Method.predict`.
        generates: Whether it runs where texts are generated: it implements `Method.generate`. One of the two at least.
        adapts: Whether it runs where a stream of test batches is answered and adapted to, and only there: it is a
            `benchmark.test_time.TestTimeMethod`.
        models: Kinds of language models that it can use, the preferred one first: ``masked``, ``causal``,
            ``encoder-decoder``; of methods that read texts. Without ``--backbone`` it is given the track's.
        cloze: Whether it asks a language model for words, so that the head over words must be pretrained.
        pretrained: Whether it starts from a pretrained model. Without, it is given none and no
            weights are loaded; what reads images cannot do without, since they are prepared for the model.
        holds_out: Whether it needs labelled samples that are not trained (declare ``validation``): where the scenario
            brings none, a fifth of the training samples of each class (and domain) is held out for it.
        tokens: Whether it needs a vision transformer's tokens (blocks, class token, patch embedding), or a function of
            the config that tells. It is then refused on models that give features alone
            (`benchmark.backbones.features`), before anything is loaded where their library can tell. It changes no
            number, so it is no part of a method's hash.
        supports: ``supports(scenario) -> str | None``: the reason why it cannot run there.
        published: Key of the method's rows in the published figures shipped with the package.
    """

    name: str
    build: Callable[[Any, Context], Method]
    config: type
    summary: str
    uses: frozenset[str] | Callable[[Any], frozenset[str]] = frozenset()
    recipes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    engine: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    default_recipe: str = "default"
    tracks: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    rule: str = ""
    toy: Mapping[str, int] = field(default_factory=dict)
    waits: int = 0
    sources: Mapping[str, str] = field(default_factory=dict)
    paper: str = ""
    display: str = ""
    bibtex: str = ""
    reference: str = ""
    control: bool = False
    stream: Literal["sequential", "joint", "oracle"] = "sequential"
    text: bool = False
    reads: Literal["image", "text"] = "image"
    classifies: bool = True
    generates: bool = False
    adapts: bool = False
    models: tuple[Literal["masked", "causal", "encoder-decoder"], ...] = ("masked", "causal", "encoder-decoder")
    cloze: bool = False
    pretrained: bool = True
    holds_out: bool = False
    tokens: bool | Callable[[Any], bool] = False
    supports: Callable[[Scenario], str | None] | None = None
    published: str = ""

    def tokens_of(self, config: object) -> bool:
        """Whether it needs tokens under this configuration.

        Raises:
            PluginError: Its function fails.
        """
        with Guard(f"method `{self.name}`")("tokens"):
            return bool(self.tokens(config) if callable(self.tokens) else self.tokens)

    def uses_of(self, config: object) -> frozenset[str]:
        """What the method uses under this configuration.

        Raises:
            PluginError: Its function fails, or names what no one can use.
        """
        guard = Guard(f"method `{self.name}`")
        with guard("uses"):
            found = self.uses(config) if callable(self.uses) else self.uses
        if not isinstance(found, (set, frozenset)) or not found <= USES.keys():
            raise guard.refuse("uses", found, hint=f"return a frozenset of {', '.join(USES)}")
        return frozenset(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenarioSpec:
    """One scenario, as its plugin registers it.

    Attributes:
        name: Name on the command line; equal to an entry point's.
        build: ``build(config, request) -> Scenario``, a pure function of its arguments and
            the data root (`benchmark.api.ScenarioRequest`).
        config: Frozen dataclass of the scenario's options.
        summary: One line for ``bench info``.
        family: Name of one of `benchmark.families.FAMILIES`, or of a plugin's.
        tracks: Input preset per track it is offered on, the default track first,
            ``{"mini": "cifar32", "paper": "unit224"}`` (`benchmark.inputs.presets`).
            Empty where the samples are no images: ``{"nano": ""}``.
        backbones: Backbone per track that stands in the place of the track's own for methods on images, where runs of a
            table must share a source model of some kind, e.g. one with BatchNorm: ``{"nano": "nano-cnn"}``.
        variant: Option that ``name/VARIANT`` sets, e.g. ``split`` for ``split-cifar100/20x5``. Where it has parts,
            ``set/16``, and variants are columns, the last part is the column and the first ones name the table.
        variants: The variants that belong together in one table, e.g. the twelve ordered pairs of
            domains: ``bench run --scenario name`` (or ``name/all``) runs every one of them. Empty: the
            bare name runs the default variant alone.
        aliases: Further names; each needs an entry point of its own.
        source: Where the data come from.
        licence: Licence of the data as the source states it.
        data_by_variant: Whether a variant reads only the part of the data that it needs, so that variants differ in
            `benchmark.scenario.Scenario.content` and stand in one table all the same.
        size_mb: Size of the download, 0 for bundled data.
        tag: What follows the name of a library, e.g. ``FILE`` where scenarios are called ``name:FILE``: data of the
            user's own, a path that ``request.tag`` holds (`benchmark.files.user_path` expands it). Records name its
            last part and the hash of its content (`benchmark.scenario_names`); `Scenario.of` need not care.
        example: Of a library: ``example(folder) -> tag`` writes small data of the form it reads into an empty folder,
            so that ``bench check name`` has something to check.
        data: The data sets that it reads (`benchmark.data.DataSet`); empty for bundled data.
        miniature: ``miniature(root)`` writes a tiny copy of these data sets, in a published layout, below a data root,
            so that ``bench check`` works where they are absent; it is read with ``ScenarioRequest.miniature``.
    """

    name: str
    build: Callable[[Any, Any], Scenario]
    config: type
    summary: str
    family: str
    tracks: Mapping[str, str]
    backbones: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""
    variants: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""
    data_by_variant: bool = False
    size_mb: float = 0.0
    tag: str = ""
    example: Callable[[Path], str] | None = None
    data: tuple[DataSet, ...] = ()
    miniature: Callable[[Path], None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorSpec:
    """One place where runs are done, ``bench run --executor NAME`` and ``bench sweep --executor NAME``.

    Attributes:
        name: Value of ``--executor``.
        execute: ``execute(jobs, how) -> iterator of outcomes``: does every `benchmark.Job`, in any order and on any
            machine that shares the results folder, and yields a `benchmark.Outcome` for each as soon as it is there.
            `benchmark.How` says how many at once, and whom to tell when one begins. A job is data
            (`benchmark.Job.as_dict`); `benchmark.run_jobs` does jobs in the process that calls it, or in its workers.
        summary: One line for ``bench info``.
        config: A frozen dataclass of options, which ``--executor-set KEY=VALUE`` gives and `benchmark.How.options`
            holds; None where there are none. They are not part of a run's identity.
    """

    name: str
    execute: Callable[[Sequence[Job], How], Iterable[Outcome]]
    summary: str
    config: type | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerSpec:
    """One experiment tracker, ``bench run --tracker NAME``.

    Attributes:
        name: Value of ``--tracker``.
        open: ``open(options) -> benchmark.tracking.Tracker``, asked once for every run.
        summary: One line for ``bench info``.
        config: A frozen dataclass of options, which ``--tracker-set NAME.KEY=VALUE`` gives; None where there are none.
            They are not part of a run's identity.
        needs: Package that it imports, e.g. ``tensorboard``; runs are refused without it.
        install: What to do then, e.g. ``pip install adaptbench[tensorboard]``.
    """

    name: str
    open: Callable[[Any], Tracker]
    summary: str
    config: type | None = None
    needs: str = ""
    install: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExporterSpec:
    """One output format of the leaderboard.

    Attributes:
        name: Value of ``--format``.
        export: ``export(tables) -> str``: a pure function of the tables.
        summary: One line for ``bench info``.
        suffix: File suffix with the dot, e.g. ``.tex``.
    """

    name: str
    export: Callable[[list[Table]], str]
    summary: str
    suffix: str = ".txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImporterSpec:
    """One format of results of another suite, ``bench import NAME FILE...``.

    Attributes:
        name: Name on the command line; equal to the entry point's.
        read: ``read(file) -> runs``: a pure function from a `benchmark.foreign.SourceFile` to the
            `benchmark.foreign.ForeignRun` in it. ``file.other(...)`` says that it is another format,
            ``file.damaged(...)`` that it cannot be read to its end.
        summary: One line for ``bench info``.
        suite: Who writes such files, e.g. ``LAMDA-PILOT``.
        files: What they are called, e.g. ``results.jsonl``.
        version: Raised when the same file is read differently; part of the identity of what is imported.
    """

    name: str
    read: Callable[[SourceFile], Iterable[ForeignRun]]
    summary: str
    suite: str
    files: str = ""
    version: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneSpec:
    """A pretrained model, or a library of them.

    Attributes:
        name: Name on the command line; equal to the entry point's.
        load: ``load(name, weights=..., offline=..., image_size=...) -> Pretrained``. ``name`` is the full name that was
            asked for, ``weights`` a local file or None, ``offline`` forbids the network, ``image_size`` is the side of
            the input in pixels or None for the model's own. It leaves random state as found.
        summary: One line for ``bench info``.
        tag: What follows the name of a library, e.g. ``MODEL.TAG`` where models are called ``name:MODEL.TAG``.
            Empty: one model, called by ``name`` alone.
        reads: What its models read: ``image``, or ``text``: language models.
        describe: ``describe(name)``: what is known without loading anything, in milliseconds: ``sha256``,
            ``description``, ``licence``, ``card`` (a text), whatever else helps; where a model comes with a package of
            its own, ``installed`` and the ``command`` that installs it. None: nothing is.
        tokenless: ``tokenless(name)``: why a model gives features but none of a vision transformer's tokens, as the end
            of a sentence that begins with the model (``has none``), or None where it has them or that is not known.
            Nothing is downloaded for it. None: only a loaded model tells.
    """

    name: str
    load: Callable[..., Pretrained]
    summary: str
    tag: str = ""
    reads: Literal["image", "text"] = "image"
    describe: Callable[[str], Mapping[str, Any]] | None = None
    tokenless: Callable[[str], str | None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricSpec:
    """One number about a finished run, computed beside those of `benchmark.metrics`.

    Every installed one is computed for every run; it stands in the record under ``metrics`` and, where it is defined,
    as a column of tables. ``bench metrics`` computes it again.

    Attributes:
        name: Key in records; equal to the entry point's.
        compute: Called with what `needs` names, as keyword arguments; returns a number, or None (or NaN) where the
            metric is not defined. A pure function.
        heading: Of its column, with the unit: ``Median acc. (%)``.
        summary: One line for ``bench info``.
        needs: Any of `NEEDS`. A run that lacks one of them has None for the metric.
        percent: Whether it is a fraction that tables show in percent.
    """

    name: str
    compute: Callable[..., float | None]
    heading: str
    summary: str
    needs: tuple[str, ...] = ("accuracy",)
    percent: bool = True


NEEDS: Mapping[str, str] = {
    "accuracy": "R (T, E), an array of fractions, NaN where not evaluated; only test sets of experiences; not of texts",
    "counts": "test samples of each of these test sets, (E,)",
    "further": "final accuracies on the other test sets, by their names",
    "baseline": "accuracies of the untrained model, (E,)",
    "family": "the record of the family (`benchmark.families.Family`)",
    "predictions": "all predictions (`benchmark.records.predictions.Predictions`)",
}
"""What a metric may be computed from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlotSpec:
    """One kind of figure, ``bench plot NAME``.

    Attributes:
        name: Name on the command line; equal to the entry point's.
        draw: ``draw(records) -> matplotlib.figure.Figure``: a pure function of a list of `benchmark.records.Record`. It
            makes its figure by ``Figure()``, not through ``pyplot``, which keeps state and looks for a display, and
            raises `ValueError` with the reason where these records cannot be drawn. If it has a parameter ``request``,
            it is also given a `benchmark.figures.PlotRequest`: its options, the width, and the predictions.
        summary: One line for ``bench info``.
        config: A frozen dataclass of options, which ``--set KEY=VALUE`` gives and the request holds; None where there
            are none.
    """

    name: str
    draw: Callable[..., Figure]
    summary: str
    config: type | None = None

    @property
    def asks(self) -> bool:
        """Whether `draw` has a parameter ``request``."""
        try:
            return "request" in inspect.signature(self.draw).parameters
        except (TypeError, ValueError):  # of something written in C: nothing is known
            return False


SELECT: Mapping[str, str] = {
    "training-domain": "a fifth of the training samples, of every source domain",
    "leave-one-domain-out": "each source domain in turn, which is not trained then; the mean over them",
    "oracle": "a fifth of the target's test samples: no one could do so without their labels",
}
"""What trials of a search are compared on (Gulrajani and Lopez-Paz, 2021, section 3.2)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolSpec:
    """How a benchmark chooses options, ``bench tune --protocol NAME``: one search for every scenario and seed.

    Attributes:
        name: Value of ``--protocol``; equal to the entry point's.
        summary: One line for ``bench info``.
        family: Name of the family of scenarios that it is for.
        axes: What is searched, of the options that a method has: a `Range` with ``search``, or a tuple of values.
        strategy: One of `benchmark.tuning.strategies.STRATEGIES`.
        budget: Trials of a search.
        seeds: Seeds from 0; each has a search of its own.
        select: Rules that it knows, keys of `SELECT`, the usual one first.
        source: Where it comes from.
    """

    name: str
    summary: str
    family: str
    axes: Mapping[str, Range | tuple[object, ...]]
    strategy: str = "random"
    budget: int = 20
    seeds: int = 1
    select: tuple[str, ...] = ("training-domain",)
    source: str = ""
