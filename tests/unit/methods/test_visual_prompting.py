"""Visual prompting: what a prompt is, what classifies, how classes find their source classes, what leaks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_methods import nearest_mean, visual_prompting, visual_prompting_clip
from bench_methods._pixel_prompting import PixelConfig, PixelPrompting
from bench_methods.visual_prompting import VisualPrompting, VisualPromptingConfig
from bench_methods.visual_prompting_clip import VisualPromptingClip, VisualPromptingClipConfig
from benchmark.api import Batch, ExperienceView
from benchmark.backbones.label_mapping import LabelMapping, at_random, frequent, in_order
from benchmark.backbones.pixel_prompts import AdditiveProgram, ExpansiveProgram, FramePrompt, PatchPrompt
from benchmark.errors import UsageError
from benchmark.run import checkpoint
from benchmark.specs import MethodSpec
from benchmark.testing.by_hand import at, context_of, place, view_of
from benchmark.testing.toys import toy_scenario

(VISION,) = visual_prompting.bench_register_methods()
(CLIP,) = visual_prompting_clip.bench_register_methods()
(MEAN,) = nearest_mean.bench_register_methods()
SCENARIO = toy_scenario(experiences=2, classes=3, train=4, test=2)


def make(spec: MethodSpec = VISION, **options: Any) -> Any:
    config = spec.config(**options)
    context = context_of(spec, config, SCENARIO)
    torch.manual_seed(0)
    return spec.build(config, context)


def begin(method: Any, task: int = 0) -> ExperienceView:
    view = view_of(method, SCENARIO, task)
    method.train()
    method.begin_experience(view)
    return view


def images_of(method: Any, task: int = 0, *, test: bool = False) -> Tensor:
    part = SCENARIO.experiences[task]
    return method.context.pipeline.eval((part.test if test else part.train).images(slice(None)))  # type: ignore[no-any-return]


def batch_of(method: Any, task: int = 0) -> Batch:
    return Batch(images_of(method, task), SCENARIO.experiences[task].train.labels)


@pytest.mark.parametrize(("prompt", "count"), [(FramePrompt(224, 30), 69_840), (PatchPrompt(224, 30), 2_700)])
def test_published_parameter_counts(prompt: torch.nn.Module, count: int) -> None:
    assert sum(parameter.numel() for parameter in prompt.parameters()) == count


def test_a_frame_leaves_the_middle_alone() -> None:
    frame = FramePrompt(10, 3)
    images = torch.randn(2, 3, 10, 10)
    added = frame(images) - images
    assert added[..., 3:7, 3:7].abs().max() == 0
    torch.testing.assert_close(added[0, :, :3], frame.up[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(added[1, :, 3:7, 7:], frame.right[0], atol=1e-5, rtol=0)


def test_a_patch_lies_where_it_is_told_to() -> None:
    patch = PatchPrompt(10, 4)
    added = patch(torch.zeros(1, 3, 10, 10), (5, 2)).detach()
    assert torch.equal(added[..., 5:9, 2:6], patch.patch)
    assert float(added.abs().sum()) == pytest.approx(float(patch.patch.detach().abs().sum()), rel=1e-5)
    torch.manual_seed(0)
    drawn = [patch.draw() for _ in range(300)]
    assert {row for row, _ in drawn} == {column for _, column in drawn} == set(range(6))
    assert patch.middle() == (3, 3)


def test_programs_start_as_what_they_say() -> None:
    images = torch.randn(2, 3, 12, 12)
    assert torch.equal(AdditiveProgram(12, 3)(images), images)
    small = torch.rand(1, 3, 6, 6)
    framed = ExpansiveProgram(12, 6, lambda values: 2 * values)(small).detach()
    assert torch.equal(framed[..., 3:9, 3:9], 2 * small)
    assert float(framed[0, 0, 0, 0]) == 1.0  # twice sigmoid(0)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: FramePrompt(8, 4), "a frame of 4 pixels leaves nothing of an image of 8"),
        (lambda: AdditiveProgram(8, 4), "a frame of 4 pixels leaves nothing"),
        (lambda: PatchPrompt(8, 8), "8 is too large for images of 8 pixels"),
        (lambda: ExpansiveProgram(8, 0, F.relu), "an image of 0 pixels does not fit"),
        (lambda: make(prompt_size=16), "a frame of 16 pixels leaves nothing of an image of 32"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(build: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build()


def test_the_size_follows_the_image() -> None:
    frame = make().prompt
    assert isinstance(frame, FramePrompt)
    assert frame.up.shape == (1, 3, 4, 32)  # 30 of 224 is 4 of 32
    assert make(prompt_size=6).prompt.up.shape == (1, 3, 6, 32)


def test_a_random_patch_moves_in_training_and_stays_in_evaluation() -> None:
    method = make(prompt="random-patch")
    zeros = torch.zeros(2, 3, 32, 32)
    torch.manual_seed(0)
    moving = {tuple(method.prompted(zeros, training=True)[0, 0].nonzero()[0].tolist()) for _ in range(20)}
    assert len(moving) > 10
    assert torch.equal(method.prompted(zeros, training=False), zeros + method.prompt.pattern((14, 14)))
    assert VISION.uses_of(method.config) == {"boundaries"}


def test_the_official_place_follows_the_test_batch_and_is_declared() -> None:
    method = make(prompt="random-patch", test_position="batch")
    assert VISION.uses_of(method.config) == {"boundaries", "test_batch"}
    images = torch.randn(4, 3, 32, 32)
    assert method.prompt.place_of(images) == method.prompt.place_of(images.clone())
    places = {method.prompt.place_of(images[:count]) for count in (1, 2, 3, 4)}
    assert len(places) > 1
    assert all(0 <= part < 28 for place in places for part in place)
    many = [method.prompt.place_of(torch.randn(1, 3, 8, 8, dtype=torch.float64)) for _ in range(300)]
    assert len({row for row, _ in many}) > 20
    assert len({column for _, column in many}) > 20
    off = VisualPromptingConfig(prompts="off", prompt="random-patch", test_position="batch")
    assert VISION.uses_of(off) == {"boundaries"}


def test_without_prompt_it_is_the_nearest_mean() -> None:
    method, mean = make(prompts="off"), make(MEAN)
    for task in (0, 1):
        begin(method, task)
        begin(mean, task)
        mean.train_step(batch_of(mean, task))
        assert method.optimizer is None
        assert float(method.train_step(batch_of(method, task))["loss"]) > 0
    found, wanted = (each.eval().predict(images_of(each, test=True)) for each in (method, mean))
    torch.testing.assert_close(found, method.config.scale * wanted)


def test_class_means_are_those_of_images_without_prompt_and_stay() -> None:
    method = make()
    begin(method)
    with torch.no_grad():
        features = method.encode(images_of(method))
        torch.testing.assert_close(method.classifier.means[0], features[:4].mean(dim=0).double(), atol=1e-6, rtol=0)
        kept = method.classifier.means.clone()
        before = method.prompt.pattern().clone()
    method.train_step(batch_of(method))
    assert torch.equal(method.classifier.means, kept)
    assert not torch.equal(method.prompt.pattern(), before)


def test_only_the_prompt_trains_unless_there_is_a_head() -> None:
    for readout, more in (("prototypes", 0), ("mapping", 0), ("linear", 2)):
        method = make(readout=readout)
        begin(method)
        start = {name: value.clone() for name, value in method.state_dict().items()}
        method.train_step(batch_of(method))
        moved = {name for name, value in method.state_dict().items() if not torch.equal(value, start[name])}
        assert {name for name in moved if name.startswith("prompt.")} == {
            "prompt.up",
            "prompt.down",
            "prompt.left",
            "prompt.right",
        }
        assert len(moved) == 4 + more
    rates = {group["base_lr"] for group in method.optimizer.param_groups}
    assert rates == {method.config.lr, method.config.head_lr}


def test_a_checkpoint_without_classifier_is_refused_and_one_with_too_few_classes_too() -> None:
    context = make().context
    object.__setattr__(context.backbone, "classifier", None)
    with pytest.raises(UsageError, match="backbone `tiny` has no classifier to map"):
        VisualPrompting(VisualPromptingConfig(readout="mapping"), context)
    with pytest.raises(UsageError, match="3 classes need 42 source classes, the checkpoint's classifier has 40"):
        begin(make(readout="mapping", multiplicity=14))


def test_the_checkpoint_s_classifier_is_not_stored_again() -> None:
    method = make(readout="mapping")
    begin(method)
    state = checkpoint.snapshot(method)["method"]
    assert sorted(state) == ["classifier.sources", "prompt.down", "prompt.left", "prompt.right", "prompt.up"]
    kept = {id(tensor) for tensor in method.kept_between_experiences()}
    assert kept == {id(tensor) for tensor in state.values()}


def test_fixed_mapping_reads_the_first_logits() -> None:
    method = make(readout="mapping")
    begin(method)
    begin(method, 1)
    images = images_of(method)
    source = method.source(method.encode(method.prompted(images, training=False)))
    torch.testing.assert_close(method.eval().predict(images), source[:, :6])


@pytest.mark.parametrize("mapping", ["random", "frequency", "iterative"])
def test_a_source_class_serves_one_class_through_the_stream(mapping: str) -> None:
    method = make(readout="mapping", mapping=mapping, multiplicity=2)
    begin(method)
    first = method.classifier.sources.clone()
    begin(method, 1)
    sources = method.classifier.sources
    assert torch.equal(sources[:3], first)
    assert len(set(sources.flatten().tolist())) == 12


def test_frequency_follows_what_prompted_images_are_taken_for() -> None:
    method = make(readout="mapping", mapping="frequency")
    begin(method)
    guess = method.source(method.encode(method.prompted(images_of(method), training=False))).argmax(dim=1)
    counts = torch.zeros(40, 3, dtype=torch.int64)
    for predicted, label in zip(guess.tolist(), SCENARIO.experiences[0].train.labels.tolist(), strict=True):
        counts[predicted, label] += 1
    assert torch.equal(method.classifier.sources, frequent(counts))


def test_an_iterative_mapping_is_made_anew_in_every_epoch_and_lets_go_of_the_images() -> None:
    method = make(readout="mapping", mapping="iterative", epochs=3, batch_size=6, optimizer="sgd", lr=1e-9)
    view = begin(method)
    wrong = method.classifier.sources.flip(0)
    made = []
    for step in range(6):  # two steps an epoch
        method.classifier.assign(range(3), wrong)
        method.train_step(at(batch_of(method), step, each=2, epochs=3))
        made.append(not torch.equal(method.classifier.sources, wrong))
        assert made[-1] == (step in (2, 4))
    method.end_experience(view)
    assert method._view is None


def test_ties_go_to_the_smaller_source_and_then_to_the_smaller_class() -> None:
    assert frequent(torch.tensor([[2, 2], [2, 2], [0, 1]])).tolist() == [[0], [1]]
    assert frequent(torch.tensor([[2, 2], [2, 2], [0, 1]]), taken=torch.tensor([0])).tolist() == [[1], [2]]
    assert frequent(torch.zeros(6, 2, dtype=torch.int64), 3).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_mappings_by_number_and_at_random() -> None:
    assert in_order((1, 2), 2).tolist() == [[2, 3], [4, 5]]
    torch.manual_seed(0)
    drawn = at_random(3, 10, 2, torch.tensor([1, 2, 3, 4]))
    assert sorted(drawn.flatten().tolist()) == [0, 5, 6, 7, 8, 9]


def test_a_mapping_comes_back_from_a_state_dict() -> None:
    known, empty = LabelMapping(2), LabelMapping(2)
    known.assign((0, 1, 2), torch.arange(6).view(3, 2))
    known.assign((1,), torch.tensor([[8, 9]]))
    empty.load_state_dict(known.state_dict())
    assert empty.sources.tolist() == [[0, 1], [8, 9], [4, 5]]
    assert known.taken(without=(1, 7)).tolist() == [0, 1, 4, 5]


def test_the_schedule_of_the_paper() -> None:
    """Section 3 of the vision parity fixtures: 5,000 steps."""
    method = make(optimizer="sgd", lr=40.0, warmup_steps=1000, schedule="cosine", epochs=5)
    rates = [40 * method.factor(place(step, each=1000, epochs=5)) for step in (0, 999, 1000, 3000)]
    assert rates == pytest.approx([0.04, 40, 40, 20])


def test_the_schedule_of_ilm() -> None:
    method = make(drops=(0.5, 0.72), epochs=200)
    rates = [method.factor(place(2 * epoch + 1, each=2, epochs=200)) for epoch in (0, 99, 100, 143, 144, 199)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_an_expansive_prompt_shrinks_the_image() -> None:
    method = make(prompt="expansive", prompt_size=8)
    images = torch.full((2, 3, 32, 32), 0.5)
    framed = method.prompted(images, training=False)
    torch.testing.assert_close(framed[..., 8:24, 8:24], images[..., 8:24, 8:24])
    torch.testing.assert_close(framed[..., :8, :], torch.zeros(2, 3, 8, 32))  # sigmoid(0), normalised


def test_texts_of_the_classes_seen_classify() -> None:
    method = make(CLIP, prompts="off")
    assert isinstance(method, VisualPromptingClip)
    for task, seen in ((0, 3), (1, 6)):
        begin(method, task)
        images = images_of(method)
        texts = [f"This is a photo of a thing {label}" for label in range(seen)]
        wanted = method.dual.logits(method.dual.image_features(images), method.dual.text_features(texts))
        torch.testing.assert_close(method.eval().predict(images), wanted)
    named = method.predict_named(images, ["Thing-3", "thing 0"])
    torch.testing.assert_close(named, wanted[:, [3, 0]])


def test_the_text_tower_stays_and_the_prompt_moves() -> None:
    method = make(CLIP)
    begin(method)
    start = {name: value.clone() for name, value in method.state_dict().items()}
    method.train_step(batch_of(method))
    moved = {name for name, value in method.state_dict().items() if not torch.equal(value, start[name])}
    assert moved == {"prompt.up", "prompt.down", "prompt.left", "prompt.right"}
    assert CLIP.uses_of(method.config) == {"boundaries", "class_names", "open_vocabulary"}


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        (PixelConfig, {"lr": 0.0}, "lr: 0.0 is not positive"),
        (PixelConfig, {"momentum": 1.0}, "momentum: 1.0 is out of range"),
        (PixelConfig, {"prompt_size": -1}, "prompt_size: -1 is negative"),
        (PixelConfig, {"drops": (0.5, 1.5)}, "drops: .* are no shares"),
        (PixelConfig, {"test_position": "batch"}, "test_position: `batch` has no effect with prompt `padding`"),
        (VisualPromptingConfig, {"scale": 0.0}, "scale: 0.0 is not positive"),
        (VisualPromptingConfig, {"multiplicity": 0}, "multiplicity: 0 is too small"),
        (VisualPromptingConfig, {"mapping": "frequency"}, "mapping: has no effect with readout `prototypes`"),
        (VisualPromptingClipConfig, {"template": "a photo"}, "template: 'a photo' has no place for the class"),
    ],
)
def test_contradictions_are_refused(config: type, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**options)


def test_both_forms_share_one_loop() -> None:
    assert issubclass(VisualPrompting, PixelPrompting)
    assert issubclass(VisualPromptingClip, PixelPrompting)
