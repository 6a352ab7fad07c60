"""Dual encoders: the CLIP contract on closed-form weights, open_clip's models, and what can go wrong with them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from open_clip import factory, pretrained
from torch import Tensor, nn

from benchmark import loading
from benchmark.backbones import _open_clip
from benchmark.backbones.dual import DualEncoder, ViTTower, check_text_prompts, dual_of
from benchmark.backbones.features import NoTokens
from benchmark.backbones.prompted_vit import check_promptable
from benchmark.backbones.text import TextTower, WholeText, WordTokenizer
from benchmark.errors import DataMissing, UsageError
from benchmark.testing import toys
from benchmark.testing.closed_form import ARCHITECTURE, image_batch, tiny_clip, tiny_clip_state
from benchmark.testing.subjects import method_subject

PROMPTS = ["a photo of a dog.", "a photo of a sea turtle.", "a photo of a aircraft carrier."]
SEVEN = [
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
]


@pytest.fixture(scope="module")
def dual() -> DualEncoder:
    return dual_of(tiny_clip())


@pytest.fixture(scope="module")
def original() -> Any:
    """The same weights in open_clip's own class."""
    with torch.random.fork_rng(devices=[]):
        model = open_clip.CLIP(**ARCHITECTURE)
    model.load_state_dict(tiny_clip_state())
    return model.eval().requires_grad_(False)


def close(found: Tensor, expected: list[Any], tolerance: float) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


# --- the CLIP contract: figures of the official implementation (openai/CLIP @ d05afc43) ----------------------------


def test_closed_form_weights(dual: DualEncoder) -> None:
    assert sum(parameter.numel() for parameter in dual.parameters()) == 2_585_265
    assert isinstance(dual.image, ViTTower)
    close(dual.embed(torch.tensor(320))[:3], [0.0306541, -0.0457391, 0.0778677], 1e-7)
    kernel = dual.image.vit.patch_embed.proj.weight
    close(kernel.flatten()[:3], [0.0255789, -0.0221669, 0.0550874], 1e-7)
    close(image_batch().flatten()[:3], [-0.2230074, -0.9869394, 0.2491285], 1e-7)
    assert dual.logit_scale.exp().item() == pytest.approx(20.0)
    assert (dual.text_width, dual.context_length) == (48, 77)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_shot_figures(dtype: torch.dtype) -> None:
    dual, tolerance = dual_of(tiny_clip()).to(dtype), 2e-5  # the figures are float32
    v = dual.image_features(image_batch().to(dtype))
    close(v[0, :4], [0.8451658, -0.7540323, -0.1765117, 0.2524079], 5e-6)
    close(v.norm(dim=1), [3.4259911, 4.0063558], 1e-5)
    tokens = dual.tokenize(PROMPTS)
    assert tokens.ids.tolist() == [
        [49406, 320, 1125, 539, 320, 1929, 269, 49407, 0],
        [49406, 320, 1125, 539, 320, 2102, 10912, 269, 49407],
        [49406, 320, 1125, 539, 320, 7706, 12308, 269, 49407],
    ]
    assert tokens.ends.tolist() == [7, 8, 8]
    t = dual.text_features(PROMPTS)
    close(t[0, :4], [-1.4989749, -0.0667560, 1.7187445, 1.8631104], 1e-5)
    close(t.norm(dim=1), [7.5795631, 6.9402976, 6.8989091], 1e-5)
    expected = [[2.3673506, 5.6906137, 5.6839194], [-2.5533495, -0.0079012, -0.0028179]]
    close(dual.logits(v, t), expected, tolerance)
    ensemble = dual.class_features(["dog", "sea_turtle", "aircraft carrier"], SEVEN)
    expected = [[5.0793853, 3.2457746, 3.1107249], [-0.7393731, -2.0367665, -2.0959671]]
    close(dual.logits(v, ensemble), expected, tolerance)
    torch.testing.assert_close(ensemble.norm(dim=1), torch.ones(3, dtype=dtype))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("A photo  of &amp;amp; a", [320, 1125, 539, 261, 320]),
        ("2012", [273, 271, 272, 273]),
        ("X X ..", [343, 343, 852]),
        ("dog, a real_world image.", [1929, 267, 320, 1532, 318, 1002, 2867, 269]),
        # Special tokens as OpenAI's tokenizer finds them.
        ("a <|startoftext|> b", [320, 49406, 321]),
        ("<|EndOfText|>a", [49407, 320]),
    ],
)
def test_byte_pairs(dual: DualEncoder, text: str, ids: list[int]) -> None:
    assert dual.tokenizer.encode(text) == ids
    assert (dual.tokenizer.start, dual.tokenizer.end) == (49406, 49407)


def test_byte_pairs_are_those_of_openai(dual: DualEncoder) -> None:
    """OpenAI's class differs from open_clip's in the names of the special tokens and in the pattern (`clip` 1.0)."""
    import regex

    names = ["<|startoftext|>", "<|endoftext|>"]
    theirs = open_clip.SimpleTokenizer(context_length=77)
    theirs.encoder |= {names[0]: 49406, names[1]: 49407}
    theirs.cache = {name: name for name in names}
    theirs.pat = regex.compile(
        r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""",
        regex.IGNORECASE,
    )
    texts = [
        "It's 3 o'clock — naïve café!",
        "漢字 and ½",
        "a_b-c.d",
        "don't we'll I'D",
        "\u00a0x\t\ny",
        "",
        "&lt;b&gt;",
    ]
    special = [
        "dog!!<|endoftext|>",
        "<start_of_text>",
        "<end_of_text> a",
        "x<|STARTOFTEXT|>y",
        "<|startoftext |>",
        "<|endoftext",
    ]
    for text in (*texts, *special):
        assert dual.tokenizer.encode(text) == theirs.encode(text), text
    plain = open_clip.SimpleTokenizer(context_length=77)
    assert [dual.tokenizer.encode(text) for text in texts] == [plain.encode(text) for text in texts]


def test_an_end_within_a_text_is_its_end(dual: DualEncoder) -> None:
    tokens = dual.tokenize(["dog <|endoftext|> cat", "dog"])
    assert tokens.ends.tolist() == [2, 2]
    torch.testing.assert_close(*dual.text_features(["dog <|endoftext|> cat", "dog"]).unbind())


def test_too_long_texts_are_refused_or_cut(dual: DualEncoder) -> None:
    long = "dog " * 80
    with pytest.raises(UsageError, match="82 tokens is longer than the 77") as caught:
        dual.text_features(["dog", long])
    assert caught.value.hint == "use a shorter class name or template", "what no option of the command line does"
    tokens = dual.tokenize([long], truncate=True)
    assert tokens.ids.shape == (1, 77)
    assert tokens.ids[0, -2:].tolist() == [1929, 49407]
    assert tokens.ends.tolist() == [76]
    assert dual.text_features([long], truncate=True).shape == (1, 32)
    with pytest.raises(UsageError, match="a prompt of 78 tokens does not fit"):
        dual.encode_text(torch.zeros(1, 78, 48), torch.tensor([77]))


# --- the shortened text pass is the full one -----------------------------------------------------------------------


def full_pass(model: Any, embeddings: Tensor, ends: Tensor) -> Tensor:
    """All 77 positions through open_clip's own transformer."""
    tokens = model.transformer(embeddings + model.positional_embedding, attn_mask=model.attn_mask)
    rows: Tensor = model.ln_final(tokens)[torch.arange(len(tokens)), ends] @ model.text_projection
    return rows


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_text_up_to_the_last_end_equals_all_positions(original: Any, dtype: torch.dtype, tolerance: float) -> None:
    dual = dual_of(tiny_clip()).to(dtype)
    reference = open_clip.CLIP(**ARCHITECTURE).to(dtype)
    reference.load_state_dict({name: value.to(dtype) for name, value in original.state_dict().items()})
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(5, 77, 48, generator=generator, dtype=dtype) * 0.3
    weight = torch.randn(5, 32, generator=generator, dtype=dtype)
    ends = torch.tensor([7, 12, 3, 12, 9])
    found, expected = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    short, full = dual.encode_text(found, ends), full_pass(reference, expected, ends)
    (short * weight).sum().backward()
    (full * weight).sum().backward()
    torch.testing.assert_close(short, full, rtol=tolerance, atol=tolerance * float(full.detach().abs().max()))
    assert found.grad is not None
    assert expected.grad is not None
    torch.testing.assert_close(
        found.grad, expected.grad, rtol=tolerance, atol=tolerance * float(expected.grad.abs().max())
    )
    assert float(found.grad[2, 4:].abs().max()) == 0.0  # behind the row's end nothing counts


def test_text_stops_at_the_last_end(dual: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.backbones import text

    seen: list[tuple[int, ...]] = []
    run = text.run_block

    def spy(block: nn.Module, tokens: Tensor, **options: Any) -> Tensor:
        out = run(block, tokens, **options)
        seen.append((tokens.shape[1], out.shape[1]))
        return out

    monkeypatch.setattr(text, "run_block", spy)
    dual.encode_text(torch.zeros(3, 77, 48), torch.tensor([8, 9, 9]))
    assert seen == [(10, 10), (10, 1)]  # one row of the last block
    seen.clear()
    dual.encode_text(torch.zeros(3, 77, 48), torch.tensor([4, 9, 6]))
    assert seen == [(5 + 10 + 7, 5 + 10 + 7), (10, 1)]  # one row without padding, where there is much of it


@pytest.mark.parametrize(("vectors", "least"), [(4, 7.0), (16, 3.0)])
def test_less_work_than_over_all_positions(dual: DualEncoder, vectors: int, least: float) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    tokens = dual.tokenize(["X " * vectors + f"{name}." for name in ("dog", "sea turtle", "aircraft carrier")])
    work = []
    for ends in (tokens.ends, torch.full((3,), 76)):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            dual.encode_text(torch.zeros(3, 77, 48), ends)
        work.append(counter.get_total_flops())
    assert work[1] / work[0] >= least


def test_towers_equal_open_clip(dual: DualEncoder, original: Any) -> None:
    images = image_batch()
    torch.testing.assert_close(dual.image_features(images), original.encode_image(images), rtol=1e-5, atol=1e-5)
    ids = open_clip.SimpleTokenizer(context_length=77)(PROMPTS)
    torch.testing.assert_close(dual.text_features(PROMPTS), original.encode_text(ids), rtol=1e-5, atol=1e-5)


# --- open_clip's names, tags and files -----------------------------------------------------------------------------


Register = Callable[..., str]


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Adds a model to open_clip's lists, with the tags ``openai`` and ``other``; returns its name."""

    def add(architecture: dict[str, Any], name: str = "tiny-clip", **known: Any) -> str:
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, json.loads(json.dumps(architecture)))
        facts = {"url": "", "hf_hub": "someone/tiny-clip/", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), **known}
        monkeypatch.setitem(pretrained._PRETRAINED, name, {"openai": facts, "other": facts})
        return name

    return add


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.safetensors"
    safetensors.torch.save_file(tiny_clip_state(), file)
    return file


def test_a_local_file_under_a_full_name(register: Register, weights: Path) -> None:
    register({**ARCHITECTURE, "quick_gelu": False})
    before = torch.random.get_rng_state()
    backbone = loading.load("open_clip:tiny-clip/openai", weights=weights)
    assert torch.equal(before, torch.random.get_rng_state())
    assert backbone.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (backbone.mean, backbone.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (backbone.image_size, backbone.patch_size, backbone.width, backbone.depth) == (32, 16, 64, 2)
    dual = dual_of(backbone)
    assert not dual.training
    assert not any(parameter.requires_grad for parameter in dual.parameters())
    assert {parameter.dtype for parameter in dual.parameters()} == {torch.float32}
    # OpenAI's weights need QuickGELU under the plain name too.
    logits = dual.logits(dual.image_features(image_batch()), dual.text_features(PROMPTS))
    close(logits, [[2.3673506, 5.6906137, 5.6839194], [-2.5533495, -0.0079012, -0.0028179]], 2e-5)
    # The image tower is the one that image-only methods get.
    check_promptable(backbone.model)
    assert isinstance(dual.image, ViTTower)
    assert backbone.model is dual.image.vit
    assert backbone.module is dual


def activations(dual: DualEncoder) -> set[str]:
    assert isinstance(dual.image, ViTTower)
    assert isinstance(dual.text, TextTower)
    blocks = [*dual.image.vit.blocks, *dual.text.blocks]
    return {type(block.mlp.act).__name__ for block in blocks}


@pytest.mark.parametrize(
    ("in_config", "in_tag", "tag", "expected"),
    [
        (False, False, "other", {"GELU"}),
        (False, True, "other", {"QuickGELU"}),
        (True, False, "other", {"QuickGELU"}),
        (False, False, "openai", {"QuickGELU"}),
    ],
)
def test_the_activation_that_the_weights_need(
    register: Register, in_config: bool, in_tag: bool, tag: str, expected: set[str]
) -> None:
    register({**ARCHITECTURE, "quick_gelu": in_config}, quick_gelu=in_tag)
    dual, _ = _open_clip.create(f"tiny-clip/{tag}", image_size=None)
    assert activations(dual) == expected
    z = torch.tensor([0.5, -1.0])
    act = dual.text.blocks[0].mlp.act  # type: ignore[union-attr, index]
    quick = z * torch.sigmoid(1.702 * z)
    torch.testing.assert_close(act(z), quick if expected == {"QuickGELU"} else F.gelu(z))


def test_names_may_be_written_as_openai_does() -> None:
    name, variant, known = _open_clip.config("ViT-B/16/openai")
    assert (name, variant) == ("ViT-B-16", "openai")
    assert known["mean"] == (0.48145466, 0.4578275, 0.40821073)


def test_half_precision_files_and_pickles_of_tensors(register: Register, tmp_path: Path) -> None:
    register(ARCHITECTURE)
    state = {name: value.half() for name, value in tiny_clip_state().items()}
    extras = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77), "vocab_size": torch.tensor(1)}
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{n}": v for n, v in {**state, **extras}.items()}}, tmp_path / "w.pt"
    )
    dual = dual_of(loading.load("open_clip:tiny-clip/other", weights=tmp_path / "w.pt"))
    assert dual.logit_scale.dtype == torch.float32
    assert torch.equal(dual.embed(torch.tensor(5)), state["token_embedding.weight"][5].float())


def test_checkpoints_with_a_text_module_of_its_own(register: Register, tmp_path: Path) -> None:
    register({**ARCHITECTURE, "custom_text": True})
    state = {
        name if name.startswith(("visual", "logit")) else f"text.{name}": v for name, v in tiny_clip_state().items()
    }
    state["logit_scale"] = state["logit_scale"].reshape(1)
    state["logit_bias"] = torch.tensor(-10.0)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    dual = dual_of(loading.load("open_clip:tiny-clip/other", weights=tmp_path / "w.safetensors"))
    assert torch.equal(dual.text.positions, state["text.positional_embedding"])  # type: ignore[union-attr]
    assert dual.logit_scale.shape == ()


def test_torchscript_archives_are_refused_with_the_way_out(register: Register, tmp_path: Path) -> None:
    import zipfile

    register(ARCHITECTURE)
    with zipfile.ZipFile(tmp_path / "ViT-B-16.pt", "w") as archive:
        archive.writestr("ViT-B-16/constants.pkl", b"")
        archive.writestr("ViT-B-16/data.pkl", b"")
    with pytest.raises(UsageError, match="TorchScript archive, which is a program") as caught:
        loading.load("open_clip:tiny-clip/openai", weights=tmp_path / "ViT-B-16.pt")
    assert "torch.jit.load" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("transformer.resblocks.1.attn.in_proj_bias"),
            "`transformer.resblocks.1.attn.in_proj_bias` is",
        ),
        (lambda s: s.pop("visual.class_embedding"), "`visual.class_embedding` is missing"),
        (
            lambda s: s.update({"visual.proj": torch.zeros(64, 7)}),
            r"`visual.proj` has shape \(7, 64\).*needs \(32, 64\)",
        ),
        (lambda s: s.update({"visual.positional_embedding": torch.zeros(10, 64)}), "`visual.positional_embedding` has"),
        (lambda s: s.update({"extra": torch.zeros(1)}), "`extra` is not part of the backbone"),
        (lambda s: s["ln_final.bias"].fill_(float("nan")), "`ln_final.bias` holds values that are not finite"),
        (lambda s: s.update({"logit_scale": torch.zeros(2)}), "`logit_scale` has shape"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(
    register: Register, change: Any, message: str, tmp_path: Path
) -> None:
    register(ARCHITECTURE)
    state = tiny_clip_state()
    change(state)
    safetensors.torch.save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(DataMissing, match=rf"odd\.safetensors: tensor {message}"):
        loading.load("open_clip:tiny-clip/openai", weights=tmp_path / "odd.safetensors")


def test_another_image_size_resamples_positions(register: Register, weights: Path) -> None:
    from timm.layers import resample_abs_pos_embed

    register(ARCHITECTURE)
    backbone = loading.load("open_clip:tiny-clip/openai", weights=weights, image_size=64)
    stored = tiny_clip_state()["visual.positional_embedding"].unsqueeze(0)
    assert backbone.image_size == 64
    assert torch.equal(backbone.model.pos_embed, resample_abs_pos_embed(stored, [4, 4], num_prefix_tokens=1))
    assert dual_of(backbone).image_features(torch.zeros(1, 3, 64, 64)).shape == (1, 32)


def test_names_without_a_tag_list_the_tags() -> None:
    for name in ("ViT-B-32", "ViT-B/32"):
        with pytest.raises(UsageError, match="open_clip:ViT-B-32 names no weights") as caught:
            loading.load(f"open_clip:{name}")
        assert "open_clip:ViT-B-32/openai" in str(caught.value.hint)


def test_unknown_names_and_tags_get_suggestions() -> None:
    with pytest.raises(UsageError, match="unknown open_clip model") as caught:
        loading.load("open_clip:ViT-B-17/openai")
    assert "did you mean `open_clip:ViT-B-1" in str(caught.value.hint)
    with pytest.raises(UsageError, match="unknown open_clip tag") as caught:
        loading.load("open_clip:ViT-B-16/openia")
    assert "did you mean `open_clip:ViT-B-16/openai`" in str(caught.value.hint)


def test_offline_says_at_once_what_to_fetch(
    register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(ARCHITECTURE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataMissing, match=r"open_clip:tiny-clip/openai are not on this machine.*are off") as caught:
        loading.load("open_clip:tiny-clip/openai", offline=True)
    hint = str(caught.value.hint)
    assert "open_clip_model.safetensors of https://huggingface.co/someone/tiny-clip" in hint
    assert "--weights FILE" in hint


def test_weights_outside_the_hub_are_named(register: Register) -> None:
    register(ARCHITECTURE, hf_hub="", url="https://example.org/w.pt")
    with pytest.raises(DataMissing, match="not on the Hugging Face hub") as caught:
        loading.load("open_clip:tiny-clip/openai")
    assert "fetch https://example.org/w.pt" in str(caught.value.hint)


@pytest.mark.parametrize(("hub", "file"), [("", "open_clip_model.safetensors"), ("model.pt", "model.safetensors")])
def test_a_file_in_the_hub_cache_is_used(
    register: Register, hub: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(ARCHITECTURE, hf_hub=f"someone/tiny-clip/{hub}")
    folder = tmp_path / "models--someone--tiny-clip"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    safetensors.torch.save_file(tiny_clip_state(), folder / "snapshots" / "abc" / file)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    backbone = loading.load("open_clip:tiny-clip/openai", offline=True)
    assert backbone.sha256 == hashlib.sha256((folder / "snapshots" / "abc" / file).read_bytes()).hexdigest()


# --- towers of other kinds -----------------------------------------------------------------------------------------


RESNET: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": ARCHITECTURE["text_cfg"],
}
BOTH_WAYS: dict[str, Any] = {
    **ARCHITECTURE,
    "custom_text": True,
    "text_cfg": {**ARCHITECTURE["text_cfg"], "no_causal_mask": True, "pool_type": "last"},
}


def test_a_resnet_image_tower(register: Register, tmp_path: Path) -> None:
    register(RESNET)
    with torch.random.fork_rng(devices=[]):
        original = open_clip.CLIP(**RESNET, quick_gelu=True).eval()
    safetensors.torch.save_file(original.state_dict(), tmp_path / "w.safetensors")
    backbone = loading.load("open_clip:tiny-clip/openai", weights=tmp_path / "w.safetensors")
    dual, images = dual_of(backbone), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(dual.image_features(images), original.encode_image(images))
        ids = open_clip.SimpleTokenizer(context_length=77)(PROMPTS)
        torch.testing.assert_close(dual.text_features(PROMPTS), original.encode_text(ids), rtol=1e-5, atol=1e-5)
    assert backbone.image_size == 32
    assert dual.embed(torch.tensor([[1, 2]])).shape == (1, 2, 48)
    with pytest.raises(NoTokens, match="vision transformer's tokens; tiny-clip has none"):
        _ = backbone.depth
    assert torch.equal(backbone.features(images), dual.image_features(images))
    with pytest.raises(UsageError, match="cannot be resized"):
        loading.load("open_clip:tiny-clip/openai", weights=tmp_path / "w.safetensors", image_size=64)


def test_methods_run_on_a_resnet_image_tower(register: Register, tmp_path: Path) -> None:
    register(RESNET)
    with torch.random.fork_rng(devices=[]):
        original = open_clip.CLIP(**RESNET, quick_gelu=True)
    safetensors.torch.save_file(original.state_dict(), tmp_path / "w.safetensors")
    before = original.state_dict()["visual.bn1.running_mean"]
    for method in ("coop", "nearest-mean", "finetune", "l2p"):
        subject = method_subject(method)
        subject.model = lambda: loading.load("open_clip:tiny-clip/openai", weights=tmp_path / "w.safetensors")
        brief = subject.brief()
        if method == "l2p":
            with pytest.raises(NoTokens, match="method `l2p` needs a vision transformer's tokens; tiny-clip has none"):
                subject.run(brief)
            continue
        done = subject.run(brief)
        assert done.record.status == "completed"
        assert done.prepared.context.backbone.width == 32
        moved = not torch.equal(done.prepared.pretrained.module.state_dict()["image.bn1.running_mean"], before)
        assert moved == (method == "finetune"), "statistics of a frozen tower stay"


def test_a_bidirectional_text_tower(register: Register, tmp_path: Path) -> None:
    register(BOTH_WAYS)
    config = {key: value for key, value in BOTH_WAYS.items() if key != "custom_text"}
    with torch.random.fork_rng(devices=[]):
        original = open_clip.CustomTextCLIP(**config).eval()
    safetensors.torch.save_file(original.state_dict(), tmp_path / "w.safetensors")
    dual = dual_of(loading.load("open_clip:tiny-clip/openai", weights=tmp_path / "w.safetensors"))
    ids = open_clip.SimpleTokenizer(context_length=77)(PROMPTS)
    with torch.no_grad():
        torch.testing.assert_close(dual.text_features(PROMPTS), original.encode_text(ids))
        torch.testing.assert_close(
            dual.image_features(image_batch()), original.encode_image(image_batch()), rtol=1e-5, atol=1e-5
        )
    assert isinstance(dual.text, WholeText)
    for use in (lambda: check_text_prompts(dual), lambda: dual.tokenizer, lambda: dual.text_width):
        with pytest.raises(UsageError, match=r"takes no learned prompts: no_causal_mask=True"):
            use()


@pytest.mark.parametrize("key", ["hf_model_name", "hf_tokenizer_name"])
def test_text_towers_of_transformers_need_the_package(
    key: str, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    register({**ARCHITECTURE, "text_cfg": {**ARCHITECTURE["text_cfg"], key: "someone/bert"}})
    with pytest.raises(UsageError, match="text tower of the package `transformers`") as caught:
        loading.load("open_clip:tiny-clip/other", weights=Path("w.safetensors"))
    assert "pip install transformers" in str(caught.value.hint)


def test_an_image_only_backbone_has_no_text() -> None:
    with pytest.raises(UsageError, match="backbone `tiny` has no text tower") as caught:
        dual_of(toys.tiny_backbone())
    assert "nano-clip" in str(caught.value.hint)


# --- words ---------------------------------------------------------------------------------------------------------


def test_word_tokenizer() -> None:
    tokenizer = WordTokenizer(["a", "latin", "letter", "hyphen", "-", "minus", ".", ".."])
    assert tokenizer.encode("A LATIN letter") == [2, 3, 4]
    assert tokenizer.encode("hyphen-minus..") == [5, 6, 7, 9]
    assert tokenizer.encode("a chalk a_a") == [2, 1, 2, 1, 2]
    assert (tokenizer.start, tokenizer.end, len(tokenizer)) == (10, 11, 12)
    assert WordTokenizer.split("Ä photo, of É.") == ["ä", "photo", ",", "of", "é", "."]


def test_the_toy_dual_encoder_has_the_toy_image_tower() -> None:
    with_text, without = toys.tiny_backbone(text=True), toys.tiny_backbone()
    for name, value in without.model.state_dict().items():
        assert torch.equal(with_text.model.state_dict()[name], value), name
    dual = dual_of(with_text)
    names = toys.toy_scenario(experiences=3).class_names
    assert all(1 not in dual.tokenizer.encode(name) for name in names)
    features = dual.class_features(names, ["a photo of a {}."])
    assert float((features @ features.T - torch.eye(len(names))).max()) < 0.999  # they differ
    assert math.isclose(dual.logit_scale.exp().item(), 10.0, rel_tol=1e-5)
