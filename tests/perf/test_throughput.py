"""Training through the engine against a bare torch loop with the same passes; memory; a whole run.

Ratios come from one process: engine and bare loop take turns, medians are compared, so that a busy
machine slows both. Run by `tox -e perf`.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pluggy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import hookspecs, records, registry
from benchmark.api import Batch, ExperienceView, Manifest
from benchmark.backbones import blocks
from benchmark.jobs import Job
from benchmark.registry import Entry, Loaded
from benchmark.run import engine, plan, preparation
from benchmark.testing import toys

pytestmark = pytest.mark.perf

IMAGES, BATCH, TURNS = 2048, 128, 5


def prepare(method: str) -> preparation.Prepared:
    """One experience, one epoch, no augmentation switched off: what a user's run does."""
    request = Job(
        scenario="toy",
        method=method,
        settings={
            "epochs": "1",
            "batch_size": str(BATCH),
            "scenario.experiences": "1",
            "scenario.classes": "10",
            "scenario.train": str(IMAGES // 10),
            "scenario.test": "1",
        },
        device="cpu",
    )
    spec = Loaded(toys.TOY_SCENARIO, Entry("toy", "toys", "tests"), "0" * 64)
    resolved = plan.resolve_specs(request, spec, registry.load_method(method))
    scenario, _ = preparation.build_scenario(resolved, {"data_root": None, "cache": Path(), "download": "never"})
    backbone = toys.tiny_backbone(embed_dim=128, depth=6, num_heads=4)
    return preparation.prepare(resolved, scenario, pretrained=backbone)


def engine_seconds(method: str, out: Path) -> float:
    hooks = pluggy.PluginManager("bench")
    hooks.add_hookspecs(hookspecs)
    record = records.read(engine.execute(prepare(method), out, hooks=hooks, quiet=True, force=True))
    return float(sum(record["timing"]["train_seconds"]))


def tensors(prepared: preparation.Prepared) -> tuple[Tensor, Tensor]:
    train = prepared.stream.scenario.experiences[0].train
    return prepared.pipeline.eval(train.images(slice(None))), train.labels


def bare_finetune(prepared: preparation.Prepared) -> float:
    images, labels = tensors(prepared)
    config = prepared.plan.method_config
    vit = prepared.context.backbone.model.requires_grad_(True).train()
    head = nn.Linear(128, 10)
    optimizer = torch.optim.SGD([*vit.parameters(), *head.parameters()], lr=config.lr, momentum=0.9)
    order = torch.randperm(len(images))
    started = time.perf_counter()
    for part in order.split(BATCH):
        loss = F.cross_entropy(head(vit(images[part])), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def bare_l2p(prepared: preparation.Prepared) -> float:
    """Both passes in full, as plainly as one would write them."""
    images, labels = tensors(prepared)
    config = prepared.plan.method_config
    vit = prepared.context.backbone.model
    pool = nn.Parameter(torch.empty(config.pool_size, config.prompt_length, 128).uniform_(-1, 1))
    keys = nn.Parameter(torch.empty(config.pool_size, 128).uniform_(-1, 1))
    head = nn.Linear(128, 10)
    trained = [pool, keys, *head.parameters()]
    optimizer = torch.optim.Adam(trained, lr=config.effective_lr)
    count = config.top_k * config.prompt_length
    order = torch.randperm(len(images))
    started = time.perf_counter()
    for part in order.split(BATCH):
        with torch.no_grad():
            query = F.normalize(vit(images[part]), dim=1)
        similarity = query @ F.normalize(keys, dim=1).T
        votes = similarity.topk(config.top_k, dim=1).indices.flatten().bincount(minlength=config.pool_size)
        index = votes.topk(config.top_k).indices.expand(len(part), -1)
        prompts = pool[index].flatten(1, 2) + vit.pos_embed[:, :1]
        patches = vit.patch_embed(images[part]) + vit.pos_embed[:, 1:]
        first = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(part), -1, -1)
        tokens = vit.norm(vit.blocks(torch.cat([first, prompts, patches], dim=1)))
        logits = head(tokens[:, 1 : 1 + count].mean(dim=1))
        loss = F.cross_entropy(logits, labels[part]) - config.pull * similarity.gather(1, index).sum() / len(part)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, config.clip)
        optimizer.step()
    return time.perf_counter() - started


def whole_pass(vit: Any, tokens: Tensor, *, read: slice | None = None, **parts: Any) -> Tensor:
    """The pass in full: every token of every block, and the readout takes what it wants afterwards."""
    out = blocks.run_blocks(vit, tokens, **parts)
    return out if read is None else out[:, read]


def bare_method(prepared: preparation.Prepared) -> float:
    """The method's own step in a plain loop over tensors in memory, its passes in full."""
    images, labels = tensors(prepared)
    spec, context = prepared.plan.method_spec, prepared.context
    users = [m for m in sys.modules.values() if getattr(m, "run_blocks", None) is blocks.run_blocks and m is not blocks]
    with contextlib.ExitStack() as stack:
        for user in users:
            stack.enter_context(mock.patch.object(user, "run_blocks", whole_pass))
        method = spec.build(prepared.plan.method_config, context)
        method.train()
        method.begin_experience(ExperienceView(prepared.stream.scenario, 0, Manifest(spec.name, context.uses)))
        order = torch.randperm(len(images))
        started = time.perf_counter()
        for part in order.split(BATCH):
            method.train_step(Batch(images[part], labels[part]))
        return time.perf_counter() - started


def median_ratio(method: str, bare: Callable[[Any], float], folder: Path) -> float:
    """Throughput of the engine over that of the bare loop, in turns, with both figures printed."""
    engine_seconds(method, folder)  # warm-up of both
    bare(prepare(method))
    ours, plain = [], []
    for _ in range(TURNS):
        ours.append(engine_seconds(method, folder))
        plain.append(bare(prepare(method)))
    ratio = statistics.median(plain) / statistics.median(ours)
    count = IMAGES // 10 * 10
    print(
        f"\n{method}: engine {count / statistics.median(ours):.0f} images/s, "
        f"bare loop {count / statistics.median(plain):.0f} images/s, ratio {ratio:.3f}"
    )
    return ratio


@pytest.mark.parametrize(("method", "bare"), [("finetune", bare_finetune), ("l2p", bare_l2p)])
def test_engine_keeps_up_with_a_bare_loop(tmp_path: Path, method: str, bare: Callable[[Any], float]) -> None:
    assert median_ratio(method, bare, tmp_path) >= 0.95


@pytest.mark.parametrize(
    "method", ["vpt-shallow", "vpt-deep", "prefix-tuning", "l2p", "l2p++", "dualprompt", "coda-prompt"]
)
def test_prompt_methods_make_up_for_the_engine_by_leaving_out_what_nobody_reads(tmp_path: Path, method: str) -> None:
    assert median_ratio(method, bare_method, tmp_path) >= 1.0


def test_loading_cifar100_adds_at_most_400_mb(data_root: Path, tmp_path: Path) -> None:
    program = """
import re, sys
from pathlib import Path
import torch, pandas, pyarrow.parquet
from bench_scenarios import _cifar, split_cifar
from benchmark.api import ScenarioRequest

def peak():
    # Not ru_maxrss: a child process inherits that from a large parent.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = peak()
request = ScenarioRequest(data_root=Path(sys.argv[1]), cache=Path(sys.argv[2]), download="never")
scenario = split_cifar.build(_cifar.CIFAR100, split_cifar.SplitCifar100Config(), request)
for part in scenario.experiences:
    part.train.images(slice(None)).amax()  # sum() would make 123 MB of int64
print((peak() - before) * 1024 / 1e6)
"""
    for turn in ("decoding", "from the cache"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(data_root), str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        added = float(done.stdout)
        print(f"\nCIFAR-100 {turn}: {added:.0f} MB added to the peak resident set")
        assert 100 < added <= 400  # the images alone are 184 MB


def test_l2p_on_split_glyphs_takes_about_a_minute(tmp_path: Path) -> None:
    bench = Path(sys.executable).with_name("bench")
    environment = {**os.environ, "BENCH_CACHE": str(tmp_path / "cache")}
    started = time.perf_counter()
    subprocess.run(
        [str(bench), "run", "--scenario", "split-glyphs", "--method", "l2p", "--out", "runs", "-q"],
        cwd=tmp_path,
        env=environment,
        check=True,
        timeout=400,
        capture_output=True,
    )
    seconds = time.perf_counter() - started
    print(f"\nL2P on split-glyphs, start to record, images rendered on the way: {seconds:.0f} s")
    assert seconds <= 90
