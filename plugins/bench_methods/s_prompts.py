"""S-Prompts, on images alone (S-iPrompts): a prompt and a head for each domain, which is told by k-means centres.

Paper: Wang, Huang, Hong. S-Prompts Learning with Pre-trained Transformers: An Occam's Razor for Domain Incremental
Learning, NeurIPS 2022, arXiv 2207.12819.
Official code: iamwangyabin/S-Prompts at a26e822, ``methods/sprompt.py`` and ``models/sinet.py``. Queries, features,
losses, gradients, parameters, centres, choices and logits of every domain equal theirs to 1e-9 in float64
(tests/unit/methods/test_s_prompts_golden.py). Written anew, no code taken.

Prompts stand behind the class token, without positions, and go through all blocks. An image belongs to the domain of
the nearest of all centres, by the sum of absolute differences to its normalised class token; prompt and head of that
domain then classify it. It takes two passes at test time.

Differences from the official code:
- Labels are classes, as domains share them; there every domain has labels of its own, compared modulo their number.
- k-means has ten starts, the default of scikit-learn at the time; the code names none, and the default is now one.
- Fewer different images than centres give fewer centres.
- Number of domains and of classes need not be known from the start; prompts of other domains are never touched.
- The released configuration of the image-only variant cannot run (no ``init_epoch``); values are those of the variant
  with language, which the paper shares.

Trainable for each domain: L D + C (D + 1). Kept besides: 5 D for the centres.
Expected (ViT-B/16): CDDB-hard 74.51, CORe50 83.13 +- 0.51, DomainNet 50.62 (README). Not yet reproduced here on the
paper track.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import families, hookimpl
from benchmark.api import Batch, Context, ExperienceView, Method, MethodConfig, Scenario, Transform
from benchmark.backbones.blocks import run_blocks
from benchmark.backbones.clusters import k_means
from benchmark.backbones.heads import ClassHead
from benchmark.backbones.prompted_vit import CLS, check_promptable, cls_feature, embed, freeze
from benchmark.backbones.task_modules import TaskModules
from benchmark.config import Range
from benchmark.learners.alignment import Collected
from benchmark.specs import MethodSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SPromptsConfig(MethodConfig):
    """Options of S-Prompts.

    Attributes:
        epochs: Passes that train, in every domain but the first. One more pass then reads the images for the centres,
            augmented as in training.
        first_epochs: In the first domain.
        lr: Learning rate at the start of each domain but the first; cosine per epoch to 0.
        first_lr: In the first domain.
        weight_decay: In every domain but the first.
        first_weight_decay: In the first domain.
        momentum: Of SGD.
        length: L, prompts of a domain.
        centres: K, of each domain.
    """

    epochs: int = 20
    first_epochs: Annotated[int, Range(min=0)] = 20
    lr: Annotated[float, Range(above=0, log=True, search=(1e-3, 0.3))] = 0.01
    first_lr: Annotated[float, Range(above=0, log=True)] = 0.01
    weight_decay: Annotated[float, Range(min=0)] = 2e-4
    first_weight_decay: Annotated[float, Range(min=0)] = 5e-4
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9
    length: Annotated[int, Range(min=1)] = 10
    centres: Annotated[int, Range(min=1)] = 5


class Domain(nn.Module):
    """Prompts and head of a domain.

    Args:
        width: D.
        length: L.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.prompts = nn.Parameter(torch.empty(length, width).uniform_(-bound, bound))
        self.head = ClassHead(width, init="torch")


class SPrompts(Method):
    """One module for each domain, centres that tell domains."""

    config: SPromptsConfig
    keys: Tensor  # (S, K, D); rows that are lacking are infinitely far

    def __init__(self, config: SPromptsConfig, context: Context) -> None:
        super().__init__(config, context)
        self.backbone = freeze(context.backbone.model)
        check_promptable(self.backbone)
        width = context.backbone.width
        self.domains = TaskModules(lambda: Domain(width, config.length))
        self.register_buffer("keys", torch.zeros(0, config.centres, width))
        self._collected = Collected()
        self.to(context.device)

    def begin_experience(self, experience: ExperienceView) -> None:
        """A new prompt and a new head."""
        config, self._collected = self.config, Collected()
        domain = self.domains.open()
        domain.head.grow(experience.seen)
        self.to(self.context.device)
        first = len(self.domains) == 1
        self._lr, self._epochs = (config.first_lr, config.first_epochs) if first else (config.lr, config.epochs)
        self.optimizer = torch.optim.SGD(
            domain.parameters(),
            lr=self._lr,
            momentum=config.momentum,
            weight_decay=config.first_weight_decay if first else config.weight_decay,
        )

    def passes(self) -> Sequence[Transform]:
        """Those that train, and one that collects queries."""
        once: tuple[Transform, ...] = ("train",)
        return once * (self._epochs + 1)

    def query(self, images: Tensor) -> Tensor:
        """Normalised class tokens ``(B, D)`` of the pass without prompts."""
        return F.normalize(cls_feature(self.backbone, images), dim=1)

    def features(self, images: Tensor, prompts: Tensor) -> Tensor:
        """Class tokens ``(B, D)`` of the pass with prompts ``(B, L, D)``."""
        tokens = embed(self.backbone, images)
        tokens = torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1)
        return run_blocks(self.backbone, tokens, read=CLS)[:, 0]

    def own(self, images: Tensor) -> Tensor:
        """Features with the prompts of the domain that is trained."""
        return self.features(images, self.domains.current.prompts.expand(len(images), -1, -1))

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step, or queries of a batch; there the loss is 0."""
        if batch.place.epoch >= self._epochs:
            with torch.no_grad():
                self._collected.add(self.query(batch.images), batch.labels)
            return {"loss": 0.0}
        loss = F.cross_entropy(self.domains.current.head(self.own(batch.images)), batch.labels)
        for group in self.active_optimizer.param_groups:
            group["lr"] = self._lr * 0.5 * (1 + math.cos(math.pi * batch.place.epoch / self._epochs))
        self.descend(loss)
        return {"loss": loss.detach()}

    def end_experience(self, experience: ExperienceView) -> None:
        """The centres of the domain."""
        found = self._collected.take()
        centres = (
            self.keys.new_zeros(0, self.keys.shape[2]) if found is None else k_means(*found[:1], self.config.centres)[0]
        )
        lacking = self.config.centres - len(centres)
        padded = F.pad(centres, (0, 0, 0, lacking), value=math.inf)
        self.keys = torch.cat([self.keys, padded.unsqueeze(0)])

    def choose(self, query: Tensor) -> Tensor:
        """Domain ``(B,)`` of the nearest centre to each query ``(B, D)``; the first while no other has centres."""
        if len(self.keys) < 2:
            return torch.zeros(len(query), dtype=torch.int64, device=query.device)
        far = torch.stack([torch.cdist(query, keys, p=1).min(dim=1).values for keys in self.keys], dim=1)
        return far.argmin(dim=1)

    def predict(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes seen)`` of the prompt and head that each image chooses."""
        chosen = self.choose(self.query(images))
        prompts = torch.stack([domain.prompts for domain in self.domains])
        weights = torch.stack([domain.head.weight for domain in self.domains])
        biases = torch.stack([domain.head.bias for domain in self.domains])
        features = self.features(images, prompts[chosen])
        return torch.einsum("bd,bcd->bc", features, weights[chosen]) + biases[chosen]

    def chosen_parts(self, images: Tensor) -> Tensor:
        """The domain whose prompt and head each image gets."""
        return self.choose(self.query(images))[:, None]

    def extra_state(self) -> Mapping[str, Any]:
        """What was collected."""
        return self._collected.state()

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `extra_state` returned."""
        self._collected.load(state, self.context.device)


def supports(scenario: Scenario) -> str | None:
    """Only where every experience is a domain that has all classes."""
    return None if families.get(scenario.family).domains else "it learns a head for each domain, and needs domains"


@hookimpl
def bench_register_methods() -> list[MethodSpec]:
    """Registers ``s-prompts``."""
    return [
        MethodSpec(
            name="s-prompts",
            build=SPrompts,
            config=SPromptsConfig,
            summary="a prompt and a head for each domain, which is told by the nearest of k-means centres",
            display="S-iPrompts",
            tokens=True,
            uses=frozenset({"boundaries"}),
            recipes={
                "domainnet": {"epochs": 30, "first_epochs": 30},
                "cddb": {"epochs": 50, "first_lr": 0.001},
            },
            default_recipe="core50",
            tracks={
                "nano": {"batch_size": 32, "epochs": 2, "first_epochs": 2, "lr": 0.1, "first_lr": 0.1},
                "mini": {"batch_size": 16, "epochs": 1, "first_epochs": 1, "lr": 0.1, "first_lr": 0.1},
            },
            rule="the published rate times ten, so that few epochs suffice: on nano within the noise of the best of "
            "results/search.py; mini: not searched",
            toy={"length": 3, "centres": 2, "first_epochs": 1},
            sources={
                "length": "S-Prompts at a26e822, configs/*.json",
                "centres": "S-Prompts at a26e822, methods/sprompt.py",
                "core50": "S-Prompts at a26e822, configs/core50_slip.json",
                "domainnet": "S-Prompts at a26e822, configs/domainnet_slip.json",
                "cddb": "S-Prompts at a26e822, configs/cddb_slip.json",
            },
            paper="arXiv:2207.12819",
            reference="iamwangyabin/S-Prompts@a26e822",
            supports=supports,
            published="s-prompts",
        )
    ]
