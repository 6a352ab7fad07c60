"""Frozen records that plugins return from their registration hooks.

Nothing here imports torch: the command line reads specs to print help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from benchmark.families import FAMILIES, Family
from benchmark.guard import Guard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmark.api import Context, Method, Scenario
    from benchmark.backbones.backbone import Pretrained
    from benchmark.jobs import Job, Outcome
    from benchmark.tables import Table

__all__ = [
    "FAMILIES",
    "USES",
    "BackboneSpec",
    "ExecutorSpec",
    "ExporterSpec",
    "Family",
    "MethodSpec",
    "MetricSpec",
    "PlotSpec",
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
        default_recipe: Name under which the class defaults are known.
        tracks: Hyper-parameters per track (``nano``, ``mini``, ``paper``), applied below the
            recipe; `rule` says where they come from.
        rule: How the values in ``tracks`` were found, without test data.
        toy: Largest values of whole-number options in the toy runs of the contract, where the published
            size would take minutes or gigabytes, e.g. ``{"projection": 64}``.
        sources: Where the value of a field or recipe comes from, ``{"lr": "paper, section 4"}``.
        paper: arXiv id or DOI.
        reference: Official repository and the commit compared with.
        control: True for the yardsticks that every table shows.
        stream: ``sequential``; ``joint`` (all training data in one experience: an upper bound of
            continual learning); or ``oracle`` (trained on the labelled target images instead of
            the source: an upper bound of adaptation).
        text: Whether it needs a backbone with a text tower (`benchmark.backbones.dual`). Without
            ``--backbone`` it is given the track's dual encoder.
        reads: What it is given: ``image`` or ``text``; scenarios of another kind are refused.
        pretrained: Whether it starts from a pretrained model. Without, it is given none and no
            weights are loaded; what reads images cannot do without, since they are prepared for the model.
        supports: ``supports(scenario) -> str | None``: the reason why it cannot run there.
        published: Key of the method's rows in the published figures shipped with the package.
    """

    name: str
    build: Callable[[Any, Context], Method]
    config: type
    summary: str
    uses: frozenset[str] | Callable[[Any], frozenset[str]] = frozenset()
    recipes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    default_recipe: str = "default"
    tracks: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    rule: str = ""
    toy: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    paper: str = ""
    reference: str = ""
    control: bool = False
    stream: Literal["sequential", "joint", "oracle"] = "sequential"
    text: bool = False
    reads: Literal["image", "text"] = "image"
    pretrained: bool = True
    supports: Callable[[Scenario], str | None] | None = None
    published: str = ""

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
        variant: Option that ``name/VARIANT`` sets, e.g. ``split`` for ``split-cifar100/20x5``.
        variants: The variants that belong together in one table, e.g. the twelve ordered pairs of
            domains: ``bench run --scenario name`` (or ``name/all``) runs every one of them. Empty: the
            bare name runs the default variant alone.
        aliases: Further names; each needs an entry point of its own.
        source: Where the data come from.
        licence: Licence of the data as the source states it.
        size_mb: Size of the download, 0 for bundled data.
    """

    name: str
    build: Callable[[Any, Any], Scenario]
    config: type
    summary: str
    family: str
    tracks: Mapping[str, str]
    variant: str = ""
    variants: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""
    size_mb: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorSpec:
    """One place where runs are done, ``bench run --executor NAME``.

    Attributes:
        name: Value of ``--executor``.
        execute: ``execute(jobs) -> iterator of outcomes``: does every `benchmark.Job`, in any order and on any
            machine that shares the results folder, and yields a `benchmark.Outcome` for each as soon as it is there.
            A job is data (`benchmark.Job.as_dict`); `benchmark.run_jobs` does jobs in the process that calls it.
        summary: One line for ``bench info``.
    """

    name: str
    execute: Callable[[Sequence[Job]], Iterable[Outcome]]
    summary: str


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
        describe: ``describe(name)``: what is known without loading anything, in milliseconds: ``sha256``,
            ``description``, ``licence``, ``card`` (a text), whatever else helps. None: nothing is.
    """

    name: str
    load: Callable[..., Pretrained]
    summary: str
    tag: str = ""
    describe: Callable[[str], Mapping[str, Any]] | None = None


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
    "accuracy": "R (T, E), an array of fractions, NaN where not evaluated; only test sets of experiences",
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
            raises `ValueError` with the reason where these records cannot be drawn.
        summary: One line for ``bench info``.
    """

    name: str
    draw: Callable[[Sequence[Any]], Figure]
    summary: str
