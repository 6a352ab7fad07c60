"""Which pretrained models a method can use, before and after they are loaded."""

from __future__ import annotations

from benchmark import loading
from benchmark.backbones.backbone import Backbone, Pretrained
from benchmark.backbones.dual import dual_of
from benchmark.backbones.features import FeatureModel, no_tokens
from benchmark.backbones.language import LanguageModel
from benchmark.errors import UsageError
from benchmark.run.plan import Plan


def check_backbone(plan: Plan) -> None:
    """Refuses a method that needs tokens on a model that is known to have none, before data and weights are loaded.

    Raises:
        UsageError: Its backbone gives features alone, or is unknown.
    """
    spec = plan.method_spec
    if spec.tokens_of(plan.method_config) and (why := loading.tokenless(plan.backbone)) is not None:
        raise no_tokens(f"method `{spec.name}`", plan.backbone, why)


def check_model(plan: Plan, pretrained: Pretrained, *, generates: bool) -> None:
    """Makes sure that a method is given a model that it can use.

    Args:
        plan: The run.
        pretrained: The model.
        generates: Whether texts are to be written.

    Raises:
        UsageError: It is given another.
    """
    spec = plan.method_spec
    if not spec.pretrained:
        return
    if pretrained.reads != spec.reads:
        raise UsageError(
            f"method `{spec.name}` reads {spec.reads}s, but `{pretrained.name}` is {pretrained.what}",
            hint="give another model with --backbone",
        )
    if isinstance(pretrained, LanguageModel):
        if pretrained.architecture not in spec.models:
            raise UsageError(
                f"method `{spec.name}` needs a language model that is {' or '.join(spec.models)}, "
                f"but `{pretrained.name}` is {pretrained.architecture}",
                hint="give another model with --backbone",
            )
        if generates and pretrained.architecture == "masked":
            raise UsageError(
                f"`{pretrained.name}` fills gaps and writes no texts, which is what the scenario asks for",
                hint="give a causal model or an encoder-decoder with --backbone",
            )
        if spec.cloze and not pretrained.fills:
            raise UsageError(
                f"method `{spec.name}` asks for words, but `{pretrained.name}` has no pretrained head over words",
                hint="give another model with --backbone, or use a method with a classifier, e.g. lm-finetune",
            )
    if spec.text and isinstance(pretrained, Backbone):
        dual_of(pretrained)
    model = getattr(pretrained, "model", None)
    if isinstance(model, FeatureModel) and spec.tokens_of(plan.method_config):
        raise no_tokens(f"method `{spec.name}`", model.name, model.why)
