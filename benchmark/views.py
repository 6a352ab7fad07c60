"""The firewall: what a method may see of an experience and of its run (promised in `benchmark.api`).

Everything outside a method's ``uses`` raises `UndeclaredUse`. A view holds what it may show and no way back to the
scenario.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmark import families
from benchmark.backbones.backbone import Backbone, Pretrained
from benchmark.backbones.language import LanguageModel
from benchmark.errors import PluginError, UndeclaredUse
from benchmark.inputs.images import ImagePipeline
from benchmark.samples import Samples
from benchmark.scenario import Scenario, Wording

if TYPE_CHECKING:
    from benchmark.inputs.pipeline import Pipeline


class Manifest:
    """What a method declares that it uses.

    Args:
        method: Its name.
        uses: Keys of `benchmark.specs.USES`.
    """

    def __init__(self, method: str, uses: frozenset[str]) -> None:
        self.method = method
        self.uses = uses

    def need(self, use: str, what: str) -> None:
        """Called before something is shown.

        Args:
            use: What has to be declared to see it.
            what: It, for the message.

        Raises:
            UndeclaredUse: The method does not declare it.
        """
        if use not in self.uses:
            raise UndeclaredUse(
                f"method `{self.method}` reads {what}, but does not declare `{use}`",
                hint=f'add "{use}" to `uses` of its MethodSpec, or do without',
            )


class ExperienceView:
    """What the method is told of the current experience; the rest raises `UndeclaredUse`.

    The engine makes one per experience and closes it afterwards: images of a closed experience can
    be read only by methods that declare ``memory``. It holds what it may show and nothing else: no
    test set, no label of a target image, no later experience.
    """

    def __init__(self, scenario: Scenario, index: int, manifest: Manifest) -> None:
        experience = scenario.experiences[index]
        seen = scenario.seen_classes(index)
        train = experience.train.alone()
        if "domains" not in manifest.uses:
            train = train.without_domains()
        self._index = index
        self._manifest = manifest
        self._open = True
        self._classes = experience.classes
        self._seen = len(seen)
        self._class_names = tuple(scenario.class_names[label] for label in seen)
        known = {} if scenario.wording is None else scenario.wording.words
        self._words = tuple(tuple(known.get(name, (name,))) for name in self._class_names)
        self._train = train
        self._validation = experience.validation if "validation" in manifest.uses else None
        self._unlabelled = None if experience.target is None else experience.target.alone()
        self._source_domains = experience.source_domains
        self._target_domain = experience.domain if experience.target is not None else None

    def close(self) -> None:
        """Called by the engine when the experience is over."""
        self._open = False

    @property
    def classes(self) -> tuple[int, ...]:
        """Labels that may occur in this experience (needs ``boundaries``)."""
        self._manifest.need("boundaries", "the classes of the experience")
        return self._classes

    @property
    def seen(self) -> int:
        """Number of classes seen so far, this experience included (needs ``boundaries``)."""
        self._manifest.need("boundaries", "the number of classes seen")
        return self._seen

    @property
    def task_id(self) -> int:
        """Index of the experience, from 0 (needs ``task_id``)."""
        self._manifest.need("task_id", "the task id")
        return self._index

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes seen so far, in label order (needs ``class_names``)."""
        self._manifest.need("class_names", "class names")
        return self._class_names

    @property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """Words that stand for the classes seen so far, in label order (needs ``class_names``).

        Those of the scenario's `Wording`; the name of a class for which it has none.
        """
        self._manifest.need("class_names", "the words of the classes")
        return self._words

    @property
    def train(self) -> Samples:
        """The whole training set, with its references (needs ``boundaries``; after its end also ``memory``)."""
        self._manifest.need("boundaries", "the training set as a whole")
        if not self._open:
            self._manifest.need("memory", "training images of a past experience")
        return self._train

    @property
    def validation(self) -> Samples | None:
        """Labelled images beside `train`, for choosing options (needs ``validation``; after the end also ``memory``).

        Only some scenarios bring them, e.g. few-shot ones; None where there are none. A method that trains on them, or
        that keeps them, has had more images than the others of its table.
        """
        self._manifest.need("validation", "validation images")
        if not self._open:
            self._manifest.need("memory", "validation images of a past experience")
        if self._validation is None:
            return None
        return self._validation.alone().without_domains()

    @property
    def unlabelled(self) -> Samples | None:
        """The unlabelled target images, or None (needs ``unlabelled``; after the end also ``memory``).

        Labels are all -1, ids only count, and the order is random but fixed for the run: `Batch`'s
        ``target_index`` are positions in this set.
        """
        self._manifest.need("unlabelled", "unlabelled target images")
        if not self._open:
            self._manifest.need("memory", "target images of a past experience")
        return self._unlabelled

    @property
    def source_domains(self) -> tuple[str, ...]:
        """Names of the domains of the training images, e.g. ``("ink",)`` (needs ``domains``).

        Several in domain generalisation; ``batch.domains`` and ``view.train.domains`` are positions in
        it. Empty when the scenario has no domains.
        """
        self._manifest.need("domains", "the names of the source domains")
        return self._source_domains

    @property
    def target_domain(self) -> str | None:
        """Name of the domain of the target images (needs ``domains``); None when there is no target."""
        self._manifest.need("domains", "the name of the target domain")
        return self._target_domain


class Context:
    """What a method is built with.

    Attributes:
        pretrained: The pretrained model, freshly loaded for this run, frozen: a method that trains it
            calls ``requires_grad_(True)`` on what it trains.
        device: Where inputs will be.
        family: Family of the scenario (`benchmark.families.Family`).
        pipeline: Turns raw samples into model input (`benchmark.inputs.pipeline`); a `Batch` has been through it
            already.
        manifest: What the method declared.
        patterns: Patterns of the scenario's `Wording`; empty where it has none.
        segments: Fields that a classifier of texts reads without a pattern; empty where the scenario does not say.
    """

    def __init__(
        self,
        *,
        pretrained: Pretrained,
        device: torch.device,
        scenario: Scenario,
        pipeline: Pipeline,
        manifest: Manifest,
    ) -> None:
        self.pretrained = pretrained
        self.device = device
        self.family = families.get(scenario.family)
        self.pipeline = pipeline
        self.manifest = manifest
        wording = scenario.wording or Wording()
        self.patterns = tuple(wording.patterns)
        self.segments = tuple(wording.segments)
        # Classes of test sets that are never trained do not count.
        self._num_classes = len(scenario.seen_classes(len(scenario.experiences) - 1))
        self._num_tasks = len(scenario.experiences)

    @property
    def uses(self) -> frozenset[str]:
        """What the method declared, keys of `benchmark.specs.USES`."""
        return self.manifest.uses

    @property
    def backbone(self) -> Backbone:
        """The pretrained model of a method that reads images.

        Raises:
            PluginError: It is none.
        """
        if not isinstance(self.pretrained, Backbone):
            raise self._refuse(Backbone.what)
        return self.pretrained

    @property
    def language(self) -> LanguageModel:
        """The pretrained model of a method that builds sequences of tokens.

        Raises:
            PluginError: It is none.
        """
        if not isinstance(self.pretrained, LanguageModel):
            raise self._refuse(LanguageModel.what)
        return self.pretrained

    @property
    def image_pipeline(self) -> ImagePipeline:
        """`pipeline` of a method that reads images: its size, normalisation and preset.

        Raises:
            PluginError: The run reads something else.
        """
        if not isinstance(self.pipeline, ImagePipeline):
            raise PluginError(
                f"method `{self.manifest.method}` asks how images are prepared, but reads {self.pipeline.kind}",
                hint="`reads` of its MethodSpec says what it is given",
            )
        return self.pipeline

    def _refuse(self, wanted: str) -> PluginError:
        found = self.pretrained
        return PluginError(
            f"method `{self.manifest.method}` asks for {wanted}, but `{found.name}` is {found.what}",
            hint="`reads` and `pretrained` of its MethodSpec say what it is given; --backbone chooses the model",
        )

    @property
    def num_classes(self) -> int:
        """Number of classes in the end (needs ``num_classes``)."""
        self.manifest.need("num_classes", "the final number of classes")
        return self._num_classes

    @property
    def num_experiences(self) -> int:
        """Number of experiences (needs ``num_experiences``)."""
        self.manifest.need("num_experiences", "the number of experiences")
        return self._num_tasks
