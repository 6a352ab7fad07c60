"""The firewall: what a method may see of an experience and of its run (promised in `benchmark.api`).

Everything outside a method's ``uses`` raises `UndeclaredUse`. A view holds what it may show and no way back to the
scenario.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmark import families
from benchmark.errors import UndeclaredUse
from benchmark.samples import ImageSet
from benchmark.scenario import Scenario

if TYPE_CHECKING:
    from benchmark.backbones.backbone import Backbone
    from benchmark.inputs.images import InputPipeline


class ExperienceView:
    """What the method is told of the current experience; the rest raises `UndeclaredUse`.

    The engine makes one per experience and closes it afterwards: images of a closed experience can
    be read only by methods that declare ``memory``. It holds what it may show and nothing else: no
    test set, no label of a target image, no later experience.
    """

    def __init__(self, scenario: Scenario, index: int, uses: frozenset[str], method: str) -> None:
        experience = scenario.experiences[index]
        seen = scenario.seen_classes(index)
        train = experience.train.alone()
        if "domains" not in uses:
            train = ImageSet(train.source, train.rows, train.labels, train.ids)
        self._index = index
        self._uses = uses
        self._method = method
        self._open = True
        self._classes = experience.classes
        self._seen = len(seen)
        self._class_names = tuple(scenario.class_names[label] for label in seen)
        self._train = train
        self._validation = experience.validation if "validation" in uses else None
        self._unlabelled = experience.target
        self._source_domains = experience.source_domains
        self._target_domain = experience.domain if experience.target is not None else None

    def _need(self, use: str, what: str) -> None:
        if use not in self._uses:
            raise UndeclaredUse(
                f"method `{self._method}` reads {what}, but does not declare `{use}`",
                hint=f'add "{use}" to `uses` of its MethodSpec, or do without',
            )

    def close(self) -> None:
        """Called by the engine when the experience is over."""
        self._open = False

    @property
    def classes(self) -> tuple[int, ...]:
        """Labels that may occur in this experience (needs ``boundaries``)."""
        self._need("boundaries", "the classes of the experience")
        return self._classes

    @property
    def seen(self) -> int:
        """Number of classes seen so far, this experience included (needs ``boundaries``)."""
        self._need("boundaries", "the number of classes seen")
        return self._seen

    @property
    def task_id(self) -> int:
        """Index of the experience, from 0 (needs ``task_id``)."""
        self._need("task_id", "the task id")
        return self._index

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes seen so far, in label order (needs ``class_names``)."""
        self._need("class_names", "class names")
        return self._class_names

    @property
    def train(self) -> ImageSet:
        """The whole training set (needs ``boundaries``; after its end also ``memory``)."""
        self._need("boundaries", "the training set as a whole")
        if not self._open:
            self._need("memory", "training images of a past experience")
        return self._train

    @property
    def validation(self) -> ImageSet | None:
        """Labelled images beside `train`, for choosing options (needs ``validation``; after the end also ``memory``).

        Only some scenarios bring them, e.g. few-shot ones; None where there are none. A method that trains on them, or
        that keeps them, has had more images than the others of its table.
        """
        self._need("validation", "validation images")
        if not self._open:
            self._need("memory", "validation images of a past experience")
        if self._validation is None:
            return None
        images = self._validation.alone()
        return ImageSet(images.source, images.rows, images.labels, images.ids)

    @property
    def unlabelled(self) -> ImageSet | None:
        """The unlabelled target images, or None (needs ``unlabelled``; after the end also ``memory``).

        Labels are all -1, ids only count, and the order is random but fixed for the run: `Batch`'s
        ``target_index`` are positions in this set.
        """
        self._need("unlabelled", "unlabelled target images")
        if not self._open:
            self._need("memory", "target images of a past experience")
        return self._unlabelled

    @property
    def source_domains(self) -> tuple[str, ...]:
        """Names of the domains of the training images, e.g. ``("ink",)`` (needs ``domains``).

        Several in domain generalisation; ``batch.domains`` and ``view.train.domains`` are positions in
        it. Empty when the scenario has no domains.
        """
        self._need("domains", "the names of the source domains")
        return self._source_domains

    @property
    def target_domain(self) -> str | None:
        """Name of the domain of the target images (needs ``domains``); None when there is no target."""
        self._need("domains", "the name of the target domain")
        return self._target_domain


class Context:
    """What a method is built with.

    Attributes:
        backbone: The pretrained model, freshly loaded for this run, frozen: a method that trains it
            calls ``requires_grad_(True)`` on what it trains.
        device: Where images will be.
        family: Family of the scenario (`benchmark.families.Family`).
        pipeline: Turns uint8 images into normalised model input (`benchmark.inputs.images`); a
            `Batch` has been through it already.
        uses: What the method declared.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        device: torch.device,
        scenario: Scenario,
        pipeline: InputPipeline,
        uses: frozenset[str],
        method: str,
    ) -> None:
        self.backbone = backbone
        self.device = device
        self.family = families.get(scenario.family)
        self.pipeline = pipeline
        self.uses = uses
        self._method = method
        # Classes of test sets that are never trained do not count.
        self._num_classes = len(scenario.seen_classes(len(scenario.experiences) - 1))
        self._num_tasks = len(scenario.experiences)

    def _need(self, use: str, what: str) -> None:
        if use not in self.uses:
            raise UndeclaredUse(
                f"method `{self._method}` reads {what}, but does not declare `{use}`",
                hint=f'add "{use}" to `uses` of its MethodSpec, or do without',
            )

    @property
    def num_classes(self) -> int:
        """Number of classes in the end (needs ``num_classes``)."""
        self._need("num_classes", "the final number of classes")
        return self._num_classes

    @property
    def num_tasks(self) -> int:
        """Number of experiences (needs ``num_tasks``)."""
        self._need("num_tasks", "the number of experiences")
        return self._num_tasks
