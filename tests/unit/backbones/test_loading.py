"""Backbones by name: bundled, timm, local files; everything that can be wrong with them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from benchmark import loading, registry
from benchmark.backbones import _hub, _timm
from benchmark.errors import DataMissing, PluginError, UsageError

ARCHITECTURE: dict[str, Any] = {
    "img_size": 16,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "num_classes": 0,
}


def model(**changes: Any) -> VisionTransformer:
    return VisionTransformer(**{**ARCHITECTURE, **changes})


PLUGIN = """
from functools import partial
from pathlib import Path

from benchmark import BackboneSpec, hookimpl
from benchmark.backbones import sources

HERE = Path(__file__).parent

def load(name, *, weights, offline, image_size):
    return sources.load_described(HERE, name, weights=weights, image_size=image_size)

@hookimpl
def bench_register_backbones():
    describe = partial(sources.described, HERE)
    return [BackboneSpec(name="tiny-vit", load=load, describe=describe, summary="random weights")]
"""


@pytest.fixture
def weights(tmp_path: Path, registry_as_it_was: None) -> Path:
    """A plugin that brings one tiny backbone, ``tiny-vit``, and the folder of its weights."""
    plugin = tmp_path / "tiny.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    registry.add_file(plugin)
    file = tmp_path / "tiny-vit.safetensors"
    safetensors.torch.save_file(model().state_dict(), file)
    description = {
        "name": "tiny-vit",
        "architecture": ARCHITECTURE,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.2],
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "licence": "CC0-1.0",
        "description": "random weights",
    }
    (tmp_path / "tiny-vit.json").write_text(json.dumps(description))
    return tmp_path


def test_a_bundled_backbone_has_its_weights_and_facts(weights: Path) -> None:
    backbone = loading.load("tiny-vit")
    stored = safetensors.torch.load_file(weights / "tiny-vit.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in backbone.model.state_dict().items())
    assert not backbone.model.training
    assert (backbone.image_size, backbone.patch_size, backbone.width, backbone.depth) == (16, 8, 24, 2)
    assert backbone.parameters == sum(value.numel() for value in stored.values())
    assert backbone.mean == (0.5, 0.4, 0.3)
    assert backbone.sha256 == hashlib.sha256((weights / "tiny-vit.safetensors").read_bytes()).hexdigest()
    assert "tiny-vit" in loading.single()
    assert loading.describe("tiny-vit")["sha256"] == backbone.sha256


def test_loading_leaves_random_state_as_found(weights: Path) -> None:
    before = torch.random.get_rng_state()
    loading.load("tiny-vit")
    assert torch.equal(before, torch.random.get_rng_state())


def test_altered_weights_are_noticed(weights: Path) -> None:
    file = weights / "tiny-vit.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataMissing, match=r"tiny-vit\.safetensors: SHA-256 is") as caught:
        loading.load("tiny-vit")
    assert caught.value.hint is not None


def test_absent_weights_are_named(weights: Path) -> None:
    (weights / "tiny-vit.safetensors").unlink()
    with pytest.raises(DataMissing, match=r"tiny-vit\.safetensors: No such file"):
        loading.load("tiny-vit")


def test_damaged_descriptions_are_named(weights: Path) -> None:
    (weights / "tiny-vit.json").write_text("{")
    with pytest.raises(DataMissing, match=r"tiny-vit\.json: not a backbone description"):
        loading.describe("tiny-vit")


def test_unknown_names_get_suggestions(weights: Path) -> None:
    with pytest.raises(UsageError, match="unknown backbone `tiny-vitt`") as caught:
        loading.load("tiny-vitt")
    assert "did you mean `tiny-vit`" in str(caught.value.hint)
    with pytest.raises(UsageError) as caught:
        loading.describe("vit_base_patch16_224.augreg_in21k")
    assert "`timm:MODEL.TAG`" in str(caught.value.hint)
    with pytest.raises(UsageError, match="`timm` is a library") as caught:
        loading.describe("timm")
    assert "timm:MODEL.TAG" in str(caught.value.hint)
    with pytest.raises(UsageError, match="one model, but `:large` was given"):
        loading.describe("tiny-vit:large")


def test_describing_needs_no_torch() -> None:
    code = (
        "import sys; from benchmark.loading import describe, single; "
        "[describe(name) for name in [*single(), 'timm:x.y']]; print('torch' in sys.modules, 'timm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_list_and_help_need_neither_torch_nor_transformers() -> None:
    code = (
        "import sys\nfrom benchmark.cli import main\nmain(['list'])\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print({'torch', 'transformers', 'tokenizers', 'timm', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "smollm2-135m" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


def test_local_safetensors_and_plain_pt_files(weights: Path, tmp_path: Path) -> None:
    source = model()
    state = {**source.state_dict(), "head.weight": torch.zeros(3, 24), "head.bias": torch.zeros(3)}
    state["pre_logits.fc.weight"] = torch.zeros(24, 24)
    safetensors.torch.save_file(state, tmp_path / "mine.safetensors")
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, tmp_path / "mine.pth")
    for name in ("mine.safetensors", "mine.pth"):
        backbone = loading.load("tiny-vit", weights=tmp_path / name)
        assert all(torch.equal(value, state[key]) for key, value in backbone.model.state_dict().items())
        assert backbone.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must never be printed",))


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickles_that_run_code_are_refused(
    kind: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "evil.pt"
    if kind == "pickle":
        file.write_bytes(pickle.dumps({"state_dict": Evil()}))
    else:
        torch.save({"state_dict": Evil()}, file)
    with pytest.raises(UsageError, match=r"evil\.pt: refused") as caught:
        loading.load("tiny-vit", weights=file)
    assert "safetensors" in str(caught.value.hint)
    assert capsys.readouterr().out == ""


def test_other_kinds_of_files_are_refused(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"`\.h5` are not read"):
        loading.load("tiny-vit", weights=tmp_path / "weights.h5")


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pt"])
def test_truncated_files_are_damaged(suffix: str, weights: Path, tmp_path: Path) -> None:
    file = tmp_path / f"cut.{suffix}"
    if suffix == "safetensors":
        safetensors.torch.save_file(model().state_dict(), file)
    elif suffix == "npz":
        np.savez(file, **jax_arrays(model()))
    else:
        torch.save(model().state_dict(), file)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataMissing, match=rf"cut\.{suffix}: damaged") as caught:
        loading.load("tiny-vit", weights=file)
    assert "pickle" not in caught.value.message, "numpy's advice to unpickle is not passed on"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.1.norm2.bias"), "`blocks.1.norm2.bias` is missing"),
        (lambda s: s.update(cls_token=torch.zeros(1, 1, 8)), r"`cls_token` has shape \(1, 1, 8\), .* \(1, 1, 24\)"),
        (lambda s: s.update(extra=torch.zeros(1)), "`extra` is not part of the backbone"),
        (lambda s: s["norm.bias"].fill_(float("nan")), "`norm.bias` holds values that are not finite"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(change: Any, message: str, weights: Path, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in model().state_dict().items()}
    change(state)
    safetensors.torch.save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(DataMissing, match=rf"odd\.safetensors: tensor {message}"):
        loading.load("tiny-vit", weights=tmp_path / "odd.safetensors")


def test_another_image_size_resamples_positions_only_when_asked_for(weights: Path, tmp_path: Path) -> None:
    from timm.layers import resample_abs_pos_embed

    backbone = loading.load("tiny-vit", image_size=32)
    stored = safetensors.torch.load_file(weights / "tiny-vit.safetensors")["pos_embed"]
    assert backbone.image_size == 32
    assert torch.equal(backbone.model.pos_embed, resample_abs_pos_embed(stored, [4, 4], num_prefix_tokens=1))
    safetensors.torch.save_file(model(img_size=32).state_dict(), tmp_path / "large.safetensors")
    with pytest.raises(DataMissing, match="`pos_embed` has shape"):
        loading.load("tiny-vit", weights=tmp_path / "large.safetensors")


def jax_arrays(vit: VisionTransformer, prefix: str = "") -> dict[str, np.ndarray[Any, Any]]:
    """The original JAX layout, by the mapping of the ViT conventions read backwards."""
    width, heads = vit.embed_dim, vit.blocks[0].attn.num_heads
    state = vit.state_dict()
    arrays: dict[str, Tensor] = {
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": torch.zeros(width, 10),
        "head/bias": torch.zeros(10),
        "pre_logits/kernel": torch.zeros(width, width),
        "pre_logits/bias": torch.zeros(width),
    }
    for index in range(len(vit.blocks)):
        block, source = f"Transformer/encoderblock_{index}", f"blocks.{index}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for layer, norm in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            arrays[f"{block}/{layer}/scale"] = state[f"{source}.{norm}.weight"]
            arrays[f"{block}/{layer}/bias"] = state[f"{source}.{norm}.bias"]
        kernels = state[f"{source}.attn.qkv.weight"].chunk(3)
        biases = state[f"{source}.attn.qkv.bias"].chunk(3)
        for name, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True):
            arrays[f"{attention}/{name}/kernel"] = kernel.T.reshape(width, heads, width // heads)
            arrays[f"{attention}/{name}/bias"] = bias.reshape(heads, width // heads)
        arrays[f"{attention}/out/kernel"] = state[f"{source}.attn.proj.weight"].T.reshape(heads, width // heads, width)
        arrays[f"{attention}/out/bias"] = state[f"{source}.attn.proj.bias"]
        for layer, linear in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
            arrays[f"{block}/MlpBlock_3/{layer}/kernel"] = state[f"{source}.mlp.{linear}.weight"].T
            arrays[f"{block}/MlpBlock_3/{layer}/bias"] = state[f"{source}.mlp.{linear}.bias"]
    return {prefix + name: value.contiguous().numpy() for name, value in arrays.items()}


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_original_jax_weights_load_as_timm_loads_them(prefix: str, weights: Path, tmp_path: Path) -> None:
    source, reference = model(), model()
    np.savez(tmp_path / "vit.npz", **jax_arrays(source, prefix))
    backbone = loading.load("tiny-vit", weights=tmp_path / "vit.npz")
    reference.load_pretrained(str(tmp_path / "vit.npz"))
    images = torch.randn(2, 3, 16, 16)
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name
        assert torch.equal(value, reference.state_dict()[name]), name
    with torch.no_grad():
        assert torch.equal(backbone.model(images), source.eval()(images))


def test_a_checkpoint_keeps_its_classifier_beside_the_model(weights: Path, tmp_path: Path) -> None:
    assert loading.load("tiny-vit").classifier is None
    source = model(num_classes=7)
    images = torch.randn(2, 3, 16, 16)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "whole.safetensors")
    backbone = loading.load("tiny-vit", weights=tmp_path / "whole.safetensors")
    assert backbone.classifier is not None
    assert not any(parameter.requires_grad for parameter in backbone.classifier.parameters())
    with torch.no_grad():
        torch.testing.assert_close(backbone.classifier(backbone.model(images)), source.eval()(images))


def test_a_classifier_of_a_jax_file_counts_without_the_layer_between(weights: Path, tmp_path: Path) -> None:
    arrays = jax_arrays(model())
    arrays["head/kernel"] = np.random.default_rng(0).normal(size=(24, 10)).astype(np.float32)
    np.savez(tmp_path / "with.npz", **arrays)
    assert loading.load("tiny-vit", weights=tmp_path / "with.npz").classifier is None
    del arrays["pre_logits/kernel"], arrays["pre_logits/bias"]
    np.savez(tmp_path / "without.npz", **arrays)
    classifier = loading.load("tiny-vit", weights=tmp_path / "without.npz").classifier
    assert classifier is not None
    assert np.array_equal(classifier.weight.numpy(), arrays["head/kernel"].T)


def test_a_damaged_classifier_is_named(weights: Path, tmp_path: Path) -> None:
    state = {**model().state_dict(), "head.weight": torch.zeros(7, 24), "head.bias": torch.full((7,), float("inf"))}
    safetensors.torch.save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(DataMissing, match=r"odd\.safetensors: tensor `head.bias` holds values that are not finite"):
        loading.load("tiny-vit", weights=tmp_path / "odd.safetensors")


def test_a_jax_file_with_a_part_missing_names_it(weights: Path, tmp_path: Path) -> None:
    arrays = jax_arrays(model())
    del arrays["Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"]
    np.savez(tmp_path / "vit.npz", **arrays)
    with pytest.raises(DataMissing, match="`Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel` is missing"):
        loading.load("tiny-vit", weights=tmp_path / "vit.npz")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise ZeroDivisionError('x')", "`load` failed: ZeroDivisionError: x"),
        ("raise SystemExit", "`load` failed: SystemExit"),
        ("return None", "`load` returned None"),
    ],
)
@pytest.mark.usefixtures("registry_as_it_was")
def test_a_plugin_that_cannot_load_its_model_is_named(body: str, problem: str, tmp_path: Path) -> None:
    plugin = tmp_path / "bad.py"
    plugin.write_text(
        "from benchmark import BackboneSpec, hookimpl\n"
        f"def load(name, *, weights, offline, image_size):\n    {body}\n"
        "def describe(name):\n    return 3\n"
        "@hookimpl\ndef bench_register_backbones():\n"
        "    return [BackboneSpec(name='bad', load=load, describe=describe, summary='')]\n",
        encoding="utf-8",
    )
    registry.add_file(plugin)
    with pytest.raises(PluginError, match=rf"backbone `bad` of `file .*bad\.py`.*{problem}"):
        loading.load("bad")
    with pytest.raises(PluginError, match=r"`describe` returned 3 \(int\)"):
        loading.describe("bad")


def test_a_timm_name_without_its_tag_lists_the_tags() -> None:
    with pytest.raises(UsageError, match="vit_tiny_patch16_224 names no weights") as caught:
        loading.load("timm:vit_tiny_patch16_224")
    assert "timm:vit_tiny_patch16_224.augreg_in21k," in str(caught.value.hint)


def test_unknown_timm_names_and_tags_get_suggestions() -> None:
    with pytest.raises(UsageError, match="unknown timm model") as caught:
        loading.load("timm:vit_tiny_patch16_225.augreg_in21k")
    assert "did you mean `timm:vit_tiny_patch16_224.augreg_in21k`" in str(caught.value.hint)
    with pytest.raises(UsageError, match="unknown timm tag") as caught:
        loading.load("timm:vit_tiny_patch16_224.augreg_in22k")
    assert "did you mean `timm:vit_tiny_patch16_224.augreg_in21k`" in str(caught.value.hint)


def test_a_timm_backbone_from_a_local_file(tmp_path: Path) -> None:
    import timm

    source = timm.create_model("vit_tiny_patch16_224.augreg_in21k", pretrained=False, num_classes=7)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "w.safetensors")
    backbone = loading.load("timm:vit_tiny_patch16_224.augreg_in21k", weights=tmp_path / "w.safetensors")
    assert (backbone.width, backbone.depth, backbone.image_size) == (192, 12, 224)
    assert backbone.mean == (0.5, 0.5, 0.5)
    assert torch.equal(backbone.model.pos_embed, source.pos_embed)


@pytest.mark.parametrize("how", ["argument", "BENCH_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_says_at_once_what_to_fetch(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    if how != "argument":
        monkeypatch.setenv(how, "1")
    with pytest.raises(DataMissing, match="downloads are off") as caught:
        loading.load("timm:vit_tiny_patch16_224.augreg_in21k", offline=how == "argument")
    hint = str(caught.value.hint)
    assert "model.safetensors of https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k" in hint
    assert "--weights FILE" in hint
    assert str(tmp_path) in hint


def test_without_network_the_error_comes_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    start = time.monotonic()
    with pytest.raises(DataMissing, match="cannot be reached") as caught:
        _timm.fetch("vit_tiny_patch16_224.augreg_in21k", offline=False)
    assert time.monotonic() - start < 2 * _hub.TIMEOUT
    assert "--weights FILE" in str(caught.value.hint)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A hub that listens and never answers, and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(_hub, "TIMEOUT", 0.2)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield server


def test_a_silent_network_counts_as_none(hub: socket.socket) -> None:
    with pytest.raises(DataMissing, match="cannot be reached"):
        _timm.fetch("vit_tiny_patch16_224.augreg_in21k", offline=False)


@pytest.mark.parametrize(
    ("status", "message"), [("404 Not Found", "holds none of model.safetensors"), ("403 Forbidden", "answers 403")]
)
def test_a_hub_without_the_file_is_named(hub: socket.socket, status: str, message: str) -> None:
    def serve() -> None:
        for _ in range(4 if status.startswith("404") else 1):
            connection, _ = hub.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with pytest.raises(DataMissing, match=message):
        _timm.fetch("vit_tiny_patch16_224.augreg_in21k", offline=False)
    thread.join()


def test_a_file_in_the_hub_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    source = timm.create_model("vit_tiny_patch16_224.augreg_in21k", pretrained=False, num_classes=0)
    folder = tmp_path / "models--timm--vit_tiny_patch16_224.augreg_in21k"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    safetensors.torch.save_file(source.state_dict(), snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    backbone = loading.load("timm:vit_tiny_patch16_224.augreg_in21k", offline=True)
    assert torch.equal(backbone.model.blocks[11].mlp.fc2.weight, source.blocks[11].mlp.fc2.weight)
    assert backbone.sha256 == hashlib.sha256((snapshot / "model.safetensors").read_bytes()).hexdigest()


# --- files of every kind -------------------------------------------------------------------------


def save(state: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({name: value.clone() for name, value in state.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pth", "bin"])
@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "backbone.", "model.", "encoder.", "module._orig_mod.", "_orig_mod.module.model."],
)
def test_prefixes_of_all_names_are_taken_off_in_every_kind_of_file(
    prefix: str, suffix: str, weights: Path, tmp_path: Path
) -> None:
    state = model().state_dict()
    path = save({prefix + name: value for name, value in state.items()}, tmp_path / f"own.{suffix}")
    found = loading.load("tiny-vit", weights=path).model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_a_prefix_of_some_names_is_part_of_them(weights: Path, tmp_path: Path) -> None:
    state = {f"module.{name}" if name == "cls_token" else name: value for name, value in model().state_dict().items()}
    with pytest.raises(DataMissing, match="`cls_token` is missing"):
        loading.load("tiny-vit", weights=save(state, tmp_path / "own.pth"))


@pytest.mark.parametrize(
    "keys",
    [["state_dict"], ["model"], ["model_state_dict"], ["state_dict_ema"], ["teacher"], ["net", "state_dict"]],
)
def test_wrappers_are_taken_off_and_what_is_no_tensor_is_left_out(
    keys: list[str], weights: Path, tmp_path: Path
) -> None:
    state = model().state_dict()
    content: dict[str, Any] = {**state, "epoch": 3, "name": "x", "history": [1.0]}
    for key in keys:
        content = {key: content, "epoch": 3, "optimizer": {"lr": 0.1}}
    found = loading.load("tiny-vit", weights=save(content, tmp_path / "own.pth")).model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_what_pretraining_keeps_beside_the_backbone_is_left_out(suffix: str, weights: Path, tmp_path: Path) -> None:
    state = model().state_dict()
    beside = {"module.head.mlp.0.weight": torch.zeros(5, 24), "module.head.last_layer.weight_g": torch.ones(5)}
    content: dict[str, Any] = {**{f"module.backbone.{name}": value for name, value in state.items()}, **beside}
    if suffix == "pth":  # as DINO saves it
        other = {name: torch.zeros_like(value) for name, value in content.items()}
        content = {"student": other, "teacher": content, "epoch": 100}
    found = loading.load("tiny-vit", weights=save(content, tmp_path / f"own.{suffix}")).model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_a_file_that_does_not_fit_is_told_by_its_first_names(weights: Path, tmp_path: Path) -> None:
    state = {f"stage{place}.conv.weight": torch.zeros(2) for place in range(7)}
    with pytest.raises(DataMissing) as caught:
        loading.load("tiny-vit", weights=save(state, tmp_path / "own.pth"))
    hint = str(caught.value.hint)
    assert "the file begins with `stage0.conv.weight`, `stage1.conv.weight`, `stage2.conv.weight` (7 in all)" in hint
    assert "the backbone with `cls_token`, `pos_embed`, `patch_embed.proj.weight` (30 in all)" in hint


def test_plain_weights_come_before_averaged_ones(weights: Path, tmp_path: Path) -> None:
    one, two = model().state_dict(), model().state_dict()
    path = save({"state_dict_ema": two, "state_dict": one}, tmp_path / "own.pth")
    assert torch.equal(loading.load("tiny-vit", weights=path).model.cls_token, one["cls_token"])


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pth"])
@pytest.mark.parametrize("kind", [torch.float16, torch.float64, torch.bfloat16])
def test_numbers_of_other_precision_become_the_models(
    kind: torch.dtype, suffix: str, weights: Path, tmp_path: Path
) -> None:
    if kind == torch.bfloat16 and suffix == "npz":
        pytest.skip("numpy has no such type")
    state = {name: value.to(kind) for name, value in model().state_dict().items()}
    found = loading.load("tiny-vit", weights=save(state, tmp_path / f"own.{suffix}")).model.state_dict()
    assert all(torch.equal(found[name], value.float()) for name, value in state.items())
    assert all(value.dtype == torch.float32 for value in found.values())


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pth"])
@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.uint8, torch.complex64])
def test_whole_numbers_and_truth_values_are_no_weights(
    kind: torch.dtype, suffix: str, weights: Path, tmp_path: Path
) -> None:
    if kind == torch.complex64 and suffix == "safetensors":
        pytest.skip("not every version has such a type")
    state = {**model().state_dict()}
    state["norm.bias"] = torch.zeros(24).to(kind)
    with pytest.raises(DataMissing, match=r"`norm.bias` (holds \w+ numbers, the backbone needs float32|is complex)"):
        loading.load("tiny-vit", weights=save(state, tmp_path / f"own.{suffix}"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"norm.bias": torch.zeros(24).to_sparse()}), "`norm.bias` is sparse"),
        (lambda s: s.update({"norm.bias": torch.zeros(24, device="meta")}), "`norm.bias` is without data"),
        (lambda s: s.update({"norm.bias": torch.full((24,), 1e300, dtype=torch.float64)}), "not finite"),
        (lambda s: s.update({"cls_token": torch.zeros(1, 1, 1).expand(10**6, 10**6, 24)}), "has shape"),
        (lambda s: s.clear(), "holds no state dict"),
    ],
    ids=["sparse", "meta", "overflow", "expanded", "empty"],
)
def test_tensors_that_are_no_weights(change: Any, message: str, weights: Path, tmp_path: Path) -> None:
    state: dict[str, Any] = {**model().state_dict()}
    change(state)
    with pytest.raises(DataMissing, match=message):
        loading.load("tiny-vit", weights=save(state, tmp_path / "own.pth"))


def test_wrappers_that_are_empty_or_hold_themselves(weights: Path, tmp_path: Path) -> None:
    own: dict[str, Any] = {"state_dict": {}, "model": model().state_dict()}
    assert loading.load("tiny-vit", weights=save(own, tmp_path / "empty.pth")).module is not None
    own = {}
    own["model"] = own
    with pytest.raises(DataMissing, match="holds no state dict of tensors"):
        loading.load("tiny-vit", weights=save(own, tmp_path / "own.pth"))
    (tmp_path / "nothing.pth").touch()
    with pytest.raises(DataMissing, match=r"damaged: \w"):
        loading.load("tiny-vit", weights=tmp_path / "nothing.pth")


def test_arrays_that_declare_more_than_they_hold_are_damaged(weights: Path, tmp_path: Path) -> None:
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("cls.npy", header.getvalue() + b"0000")
    with pytest.raises(DataMissing, match="`cls` declares 40000000000000 bytes"):
        loading.load("tiny-vit", weights=tmp_path / "own.npz")


def test_arrays_of_text_are_left_out(weights: Path, tmp_path: Path) -> None:
    arrays = jax_arrays(model())
    np.savez(tmp_path / "own.npz", **arrays, note=np.array(["text"]), odd=np.array([None]))
    loading.load("tiny-vit", weights=tmp_path / "own.npz")
    np.savez(tmp_path / "text.npz", note=np.array(["text"]))
    with pytest.raises(DataMissing, match="holds no state dict of tensors"):
        loading.load("tiny-vit", weights=tmp_path / "text.npz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_what_is_no_file_is_refused_at_once(weights: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "own.pth")
    for path in (tmp_path / "own.pth", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataMissing, match="not a file"):
            loading.load("tiny-vit", weights=path)


class Whole(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 2)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["checkpoint", "nested", "bare", "module", "script"])
def test_the_way_to_convert_a_refused_file_works(
    kind: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = {**model().state_dict(), "tied": model().cls_token}
    state["tied"] = state["cls_token"]
    path = tmp_path / "own's.pt"
    if kind == "script":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    else:
        args = SimpleNamespace(lr=1)
        torch.save(
            {
                "checkpoint": {"state_dict": state, "args": args},
                "nested": {"teacher": state, "args": args},
                "bare": {**state, "args": args},
            }.get(kind, {"net": Whole(), "args": args}),
            path,
        )
    with pytest.raises(UsageError, match="refused") as caught:
        loading.load("tiny-vit", weights=path)
    exec(str(caught.value.hint).partition("in Python: ")[2], {})
    found = safetensors.torch.load_file("weights.safetensors")
    assert set(found) == ({*state} if kind in ("checkpoint", "nested", "bare") else set(found))
    assert found
    if kind in ("checkpoint", "nested", "bare"):  # what the hint made is a file that loads
        safetensors.torch.save_file({name: value for name, value in found.items() if name != "tied"}, "fit.safetensors")
        loaded = loading.load("tiny-vit", weights=tmp_path / "fit.safetensors")
        assert torch.equal(loaded.model.cls_token, state["cls_token"])


# --- weights that users bring ----------------------------------------------------------------------------------------


def test_own_weights_are_named_as_own(weights: Path, tmp_path: Path) -> None:
    path = save(model().state_dict(), tmp_path / "mine v2.safetensors")
    backbone = loading.load("tiny-vit", weights=path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.name == f"custom:mine v2-{digest[:8]}"
    assert backbone.own_weights
    assert not loading.load("tiny-vit").own_weights
    same = loading.load("tiny-vit", weights=weights / "tiny-vit.safetensors")
    assert (same.name, same.own_weights) == ("tiny-vit", False), "the bundled file is the bundled one"


def test_own_weights_need_no_tag(tmp_path: Path) -> None:
    import timm

    source = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    path = save(source.state_dict(), tmp_path / "own.safetensors")
    backbone = loading.load("timm:vit_tiny_patch16_224", weights=path)
    assert backbone.name.startswith("custom:own-")
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert loading.load("timm:vit_tiny_patch16_224.augreg_in21k", weights=path).own_weights
    with pytest.raises(UsageError, match="unknown timm model"):
        loading.load("timm:vit_tinny_patch16_224", weights=path)
    with pytest.raises(UsageError, match="names someone's own weights") as caught:
        loading.load(backbone.name)
    assert "--weights FILE" in str(caught.value.hint)
