"""Features of frozen networks: computed once, kept on disk, and the same bits whoever computed them."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark import registry
from benchmark.api import Batch, Context, ExperienceView, Method, Samples
from benchmark.backbones import frozen
from benchmark.backbones.prompted_vit import cls_feature, set_gelu
from benchmark.cli import main
from benchmark.errors import BenchWarning
from benchmark.inputs.images import ImagePipeline
from benchmark.inputs.presets import PRESETS
from benchmark.jobs import Job
from benchmark.records import predictions
from benchmark.registry import Entry, Loaded
from benchmark.run import engine, evaluation, keeper, networks, plan, preparation
from benchmark.run.feature_files import FeatureFiles
from benchmark.run.keeper import Keeper
from benchmark.run.options import UNSEEN, EngineConfig
from benchmark.run.preparation import Prepared
from benchmark.run.rules import Rules
from benchmark.testing.laboratory import manager
from benchmark.testing.toys import TOY_SCENARIO, prepare_toy, tiny_backbone

MOST = 10**8
PIPELINE = ImagePipeline("plain", size=32, mean=(0.5,) * 3, std=(0.5,) * 3)


def rules(**others: Any) -> Rules:
    facts: dict[str, Any] = {"seed": 1, "eval_seed": 0, "batch_size": 8, "eval_batch_size": 32, **others}
    device = torch.device("cpu")
    return Rules(name="m", uses=frozenset(), pipeline=PIPELINE, device=device, **facts)


def some(count: int, seed: int = 0, first: int = 0) -> Samples:
    images = torch.randint(
        0, 256, (count + 7, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return Samples(images, torch.arange(first, first + count), torch.zeros(count, dtype=torch.int64))


class Asked:
    """A keeper and a network, and how many samples the network was shown."""

    def __init__(self, files: Path | None = None, most: int = MOST, **others: Any) -> None:
        self.vit: Any = tiny_backbone().model.requires_grad_(False).eval()
        self.seen = 0
        self.embedded = self.vit.patch_embed.forward
        self.vit.patch_embed.forward = self.count  # no hook: those are noticed
        self.keeper = Keeper(rules(), None if files is None else FeatureFiles(files, most), **others)

    def count(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        found: Tensor = self.embedded(images)
        return found

    def __call__(self, sets: list[Samples], rows: Tensor, again: bool = True) -> Tensor:
        inputs = rules().tested(Samples.concat(sets), rows)
        with self.keeper.handing(inputs, sets, rows, again=again), torch.no_grad():
            return cls_feature(self.vit, inputs)


def in_order(vit: nn.Module, samples: Samples) -> Tensor:
    """What the rules of the keeper say: in order, in nearly equal parts."""
    parts = torch.tensor_split(torch.arange(len(samples)), -(-len(samples) // 32))
    with torch.no_grad():
        return torch.cat([cls_feature(vit, rules().tested(samples, part)) for part in parts])


@pytest.mark.parametrize("memory", [keeper.MEMORY, 0])
def test_samples_of_several_sets_are_computed_once_in_the_order_of_their_set(memory: int) -> None:
    asked, sets = Asked(memory=memory), [some(40), some(50, 1), some(70, 2)]
    expected = torch.cat([in_order(asked.vit, part) for part in sets])
    for seed in range(3):
        asked.seen = 0
        rows = torch.randperm(160, generator=torch.Generator().manual_seed(seed))[:100]
        assert torch.equal(asked(sets, rows), expected[rows])
        assert asked.seen == (160 if seed == 0 else 0)


def test_a_small_set_is_filled_up_and_a_small_batch_is_computed_as_it_is() -> None:
    asked, small, large = Asked(), some(5), some(40, 1)
    asked([small, large], torch.arange(45))
    assert asked.seen == keeper.FEWEST + 40
    before = asked([large], torch.arange(3))
    assert asked.seen == keeper.FEWEST + 40 + 3
    with torch.no_grad():
        assert torch.equal(before, cls_feature(asked.vit, rules().tested(large, torch.arange(3))))


def test_what_is_read_for_the_last_time_is_not_computed_for_later() -> None:
    asked, first, second = Asked(), some(40), some(40, 1)
    asked([first], torch.arange(20), again=False)
    assert asked.seen == 20
    asked([first], torch.arange(20))
    asked([first, second], torch.arange(20, 60), again=False)  # one of them is known
    assert asked.seen == 20 + 40 + 40
    asked.keeper.keep_only([second])
    asked([first, second], torch.arange(20, 60))
    assert asked.seen == 20 + 40 + 40 + 40


@pytest.mark.parametrize(
    "change",
    [
        lambda vit: vit.blocks[0].mlp.fc1.weight.data.mul_(1.1),
        lambda vit: set_gelu(vit, "tanh"),
        lambda vit: setattr(vit.blocks[1].attn, "scale", 0.1),
    ],
    ids=["weights", "module", "number"],
)
def test_a_network_that_was_changed_is_another_one(change: Callable[[Any], object], tmp_path: Path) -> None:
    asked, samples, rows = Asked(tmp_path), some(64), torch.arange(20)
    before = asked([samples], rows)
    change(asked.vit)
    asked.keeper.look_again()
    after = asked([samples], rows)
    assert not torch.allclose(before, after, rtol=0, atol=1e-6)
    assert torch.equal(after, in_order(asked.vit, samples)[rows])


@pytest.mark.parametrize("how", ["trains", "train mode", "hook", "changed inputs"])
def test_what_is_not_frozen_is_computed(how: str) -> None:
    asked, samples = Asked(), some(40)
    inputs = rules().tested(samples, torch.arange(20))
    with asked.keeper.handing(inputs, [samples], torch.arange(20)):
        cls_feature(asked.vit, inputs)
        assert asked.seen == 40
        if how == "trains":
            asked.vit.norm.requires_grad_(True)
        elif how == "train mode":
            asked.vit.blocks[0].train()
        elif how == "hook":
            asked.vit.blocks[0].register_forward_hook(lambda module, args, out: out + 1)
        cls_feature(asked.vit, inputs + 1 if how == "changed inputs" else inputs)
    assert asked.seen == 60
    cls_feature(asked.vit, inputs)  # outside
    assert asked.seen == 80


def test_only_plain_functions_can_be_kept() -> None:
    def inside(network: nn.Module, inputs: Any) -> Tensor:
        return torch.zeros(1, 1)

    for function in (inside, lambda network, inputs: torch.zeros(1, 1), Asked.count):
        with pytest.raises(TypeError, match="no plain function of a module"):
            frozen.frozen(function)  # type: ignore[arg-type]


# --- on disk ------------------------------------------------------------------------------------


def entries(root: Path) -> list[Path]:
    return sorted(root.rglob("*.safetensors"))


def test_another_run_finds_them(tmp_path: Path) -> None:
    samples, rows = some(80), torch.randperm(80)
    first = Asked(tmp_path)
    found = first([samples], rows)
    assert first.seen == 80
    (entry,) = entries(tmp_path / "features")
    assert entry.parent.name.startswith("cls_feature-")
    second = Asked(tmp_path)
    same = some(80)  # the same images and rows, other objects; labels are no matter
    same.labels += 1
    assert torch.equal(second([same], rows), found)
    assert second.seen == 0
    for other in (some(80, 1), some(80, first=1)):  # other images, other rows
        second([other], rows)
    assert second.seen == 160
    assert len(entries(tmp_path)) == 3


def test_small_sets_are_not_worth_a_file(tmp_path: Path) -> None:
    Asked(tmp_path)([some(keeper.WORTH_A_FILE - 1)], torch.arange(20))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "words", "other length"])
def test_a_damaged_entry_is_found_and_made_anew(tmp_path: Path, damage: str) -> None:
    samples, rows = some(80), torch.arange(80)
    found = Asked(tmp_path)([samples], rows)
    (entry,) = entries(tmp_path)
    content = bytearray(entry.read_bytes())
    if damage == "bit":
        content[-100] ^= 1
    elif damage == "other length":
        content = content.replace(b'"shape":[80,32]', b'"shape":[32,80]')
    entry.write_bytes({"cut": content[:-4], "empty": b"", "words": b"some words" * 9}.get(damage, content))
    asked = Asked(tmp_path)
    with pytest.warns(BenchWarning, match="is damaged .*; it is removed, and its features are computed again"):
        assert torch.equal(asked([samples], rows), found)
    assert asked.seen == 80
    (entry,) = entries(tmp_path)
    assert torch.equal(Asked(tmp_path)([samples], rows), found)


def test_they_are_bounded_and_what_was_used_longest_ago_goes(tmp_path: Path) -> None:
    for seed in range(3):
        Asked(tmp_path)([some(64, seed)], torch.arange(64))
    size, old = entries(tmp_path)[0].stat().st_size, 1_000_000_000
    for place, entry in enumerate(entries(tmp_path)):
        os.utime(entry, (old + place, old + place))
    gone, *stay = entries(tmp_path)
    Asked(tmp_path, most=3 * size)([some(64, 3)], torch.arange(64))
    assert not gone.exists()
    assert all(entry.exists() for entry in stay)
    asked = Asked(tmp_path, most=size)
    with pytest.warns(BenchWarning, match=r"all the space that engine\.feature_cache_gb=.* gives them"):
        asked([some(64, 4), some(64, 5)], torch.arange(128))
    assert len(entries(tmp_path)) == 1
    asked([some(64, 6)], torch.arange(64))  # said once


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file")
    with pytest.warns(BenchWarning, match="features of frozen networks are not kept"):
        found = Asked(tmp_path)([some(64)], torch.arange(64))
    assert torch.equal(found, Asked()([some(64)], torch.arange(64)))


def _keep(root: str) -> None:
    torch.set_num_threads(1)
    Asked(Path(root))([some(64), some(64, 1)], torch.arange(128))


def test_two_processes_may_write_at_once(tmp_path: Path, one_thread: None) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_keep, args=(str(tmp_path),)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert len(entries(tmp_path)) == 2
    asked = Asked(tmp_path)
    asked([some(64), some(64, 1)], torch.arange(128))
    assert asked.seen == 0


def test_names_tell_what_bits_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, told = Asked(), set()

    def name() -> str:
        asked.keeper.look_again()
        return asked.keeper._name(cls_feature, asked.vit, ())

    told.add(name())
    assert name() in told
    torch.set_num_threads(torch.get_num_threads() + 1)
    try:
        told.add(name())
    finally:
        torch.set_num_threads(torch.get_num_threads() - 1)
    with torch.autocast("cpu", torch.bfloat16):
        told.add(name())
    monkeypatch.setattr(networks, "ENGINE", networks.ENGINE + 1)
    told.add(name())
    monkeypatch.setattr(networks, "versions", lambda: {"torch": "0.1", "timm": "0.1"})
    told.add(name())
    assert len(told) == 5


# --- whole runs ---------------------------------------------------------------------------------


class Nearest(Method):
    """Class means of frozen features, and how many images the network was shown."""

    shown: int

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.vit: Any = context.backbone.model
        self.sums: dict[int, Tensor] = {}
        embedded = self.vit.patch_embed.forward

        def count(images: Tensor) -> Tensor:
            type(self).shown += len(images)
            found: Tensor = embedded(images)
            return found

        self.vit.patch_embed.forward = count

    def begin_experience(self, experience: ExperienceView) -> None:
        self.sums |= {label: torch.zeros(32) for label in range(experience.seen) if label not in self.sums}

    def train_step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        for row, label in zip(cls_feature(self.vit, batch.images), batch.labels.tolist(), strict=True):
            self.sums[label] += row
        return {"loss": 0.0}

    def predict(self, images: Tensor) -> Tensor:
        return cls_feature(self.vit, images) @ torch.stack(list(self.sums.values())).T

    def extra_state(self) -> Mapping[str, Any]:
        return {"sums": self.sums}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.sums = dict(state["sums"])


def run(out: Path, prepared: Prepared) -> predictions.Predictions:
    path = engine.execute(prepared, out, hooks=manager([]), quiet=True)
    return predictions.read(path.with_suffix(".parquet"))


def test_a_run_shows_its_network_every_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    counted, results = {}, []
    for name, gigabytes in (("off", "0"), ("cold", "1"), ("warm", "1")):
        build = type("Own", (Nearest,), {"shown": 0})
        settings = {"epochs": "2", "batch_size": "16", "engine.feature_cache_gb": gigabytes}
        found = run(tmp_path / name, prepare_toy(build=build, settings=settings, train=32, test=32))
        counted[name] = build.shown
        results.append((found.prediction.tolist(), found.confidence.tolist()))
    # In each evaluation a few are predicted alone; a copy is shown a step's and one, to count what they cost.
    rest = 2 * evaluation.PROBES + 16 + 1
    assert counted == {"off": 2 * 64 + 2 * 64 + rest, "cold": 2 * 64 + 2 * 64 + rest, "warm": rest}
    assert results[0] == results[1] == results[2]


def of(method: str, settings: Mapping[str, str]) -> Prepared:
    """A run of a built-in method on the toy stream."""
    given = {"epochs": "1", "batch_size": "16", "scenario.train": "32", "scenario.test": "32", **settings}
    request = Job(scenario="toy", method=method, settings=given, device="cpu")
    spec = Loaded(TOY_SCENARIO, Entry("toy", "toys", "tests"), "0" * 64)
    resolved = plan.resolve_specs(request, spec, registry.load_method(method))
    scenario, _ = preparation.build_scenario(resolved, {"data_root": None, "cache": Path(), "download": "never"})
    return preparation.prepare(resolved, scenario, pretrained=tiny_backbone(text=resolved.method_spec.text))


def test_two_methods_share_entries_and_results_are_those_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    still = {"augment": "false"}
    methods = {
        "nearest-mean": {},
        "linear-probe": still,
        "l2p": still,
        "clip-zero-shot": {"epochs": "0"},
        "coop": still,
    }
    results: dict[str, list[Any]] = {name: [] for name in methods}
    kept: dict[str, int] = {}
    for gigabytes in ("0", "1"):
        for name, options in methods.items():
            found = run(tmp_path / gigabytes, of(name, {**options, "engine.feature_cache_gb": gigabytes}))
            results[name].append((found.prediction.tolist(), found.confidence.tolist()))
            kept[name] = len(entries(tmp_path / "features"))
            assert bool(kept[name]) == (gigabytes == "1")
    assert all(without == with_ for without, with_ in results.values())
    # Two training and two test sets; the towers of CLIP have a projection more, and `coop` reads training images too.
    assert list(kept.values()) == [4, 4, 4, 4 + 2, 4 + 4]
    assert main(["cache", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["entries"]
    assert {entry["kind"] for entry in told} == {"features of frozen networks"}
    assert [entry["name"].rpartition("-")[0] for entry in told] == ["features/cls_feature", "features/tower_features"]
    assert sum(entry["bytes"] for entry in told) == sum(entry.stat().st_size for entry in entries(tmp_path))
    assert main(["cache", "clear", told[0]["name"]]) == 0
    assert len(entries(tmp_path / "features")) == 4


def test_augmented_views_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    results, counts = [], []
    for place, gigabytes in enumerate(("0", "1", "1")):
        options = {"augment": "true", "views": "2", "epochs": "2", "engine.feature_cache_gb": gigabytes}
        prepared = of("coop", options)
        prepared.context.image_pipeline.preset = PRESETS["cifar32"]
        found = run(tmp_path / str(place), prepared)
        results.append((found.prediction.tolist(), found.confidence.tolist()))
        counts.append(len(entries(tmp_path / "features")))
    assert counts == [0, 2 + 2 * 2, 2 + 2 * 2]  # test sets, and views of both training sets
    assert results[0] == results[1] == results[2]


def test_the_option_is_no_part_of_a_run() -> None:
    assert "feature_cache_gb" in UNSEEN
    assert EngineConfig().feature_cache_gb == 2.0
