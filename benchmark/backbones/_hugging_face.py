"""Language models from folders that transformers reads: config, safetensors, tokenizer; or one GGUF file.

Imports transformers, which takes a second.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers.models.auto import modeling_auto

from benchmark.backbones.language import LanguageModel
from benchmark.backbones.language.attention import install
from benchmark.backbones.language.model import Architecture
from benchmark.errors import DataMissing, UsageError
from benchmark.files import sha256

AUTO = {
    "masked": transformers.AutoModelForMaskedLM,
    "causal": transformers.AutoModelForCausalLM,
    "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
}
PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")
"""Files of a repository that a model needs: never a pickle."""
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
"""Files of which a tokenizer has one: without any, the library would make an empty one."""


@contextmanager
def quiet() -> Iterator[None]:
    """Transformers tells of every weight and shows bars; what matters is an error here."""
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def from_folder(name: str, folder: Path, **about: Any) -> LanguageModel:
    """The model of a folder.

    Args:
        name: For record and messages.
        folder: Holds ``config.json``, one or more ``*.safetensors`` and the tokenizer's files.
        **about: Further attributes of the model.

    Raises:
        UsageError: The weights are pickles, or the model is of a kind that is not supported.
        DataMissing: A file is absent or damaged, weights do not fit the architecture, or the tokenizer the model.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file():
        raise DataMissing(
            f"{folder}: no config.json", hint="give the folder that `save_pretrained` of transformers wrote"
        )
    if not files:
        pickles = [path.name for path in sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")])]
        if pickles:
            raise UsageError(
                f"{folder}: {pickles[0]} is a pickle, which may run code when it is read",
                hint="save the model with save_pretrained(..., safe_serialization=True)",
            )
        raise DataMissing(f"{folder}: no *.safetensors", hint="give the folder of a complete model")
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            architecture = _architecture(config)
            model, fills = _model(folder, config, architecture, files)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:  # a damaged file raises any of them
        raise DataMissing(
            f"{folder}: {_first_line(error)}", hint="the model is damaged or incomplete: get it again"
        ) from error
    digest = sha256(files[0]) if len(files) == 1 else _joined(sha256(path) for path in files)
    return _finished(name, folder, model, architecture, digest, fills=fills, **about)


def from_gguf(name: str, file: Path, **about: Any) -> LanguageModel:
    """The causal model of a GGUF file, its weights as float32.

    Raises:
        UsageError: The package that reads such files is not installed.
        DataMissing: The file is absent or damaged, or of a kind that transformers does not read.
    """
    missing = [package for package in ("gguf", "accelerate") if importlib.util.find_spec(package) is None]
    if missing:
        raise UsageError(
            f"{file.name} needs {' and '.join(missing)}, which transformers reads such files with",
            hint="pip install 'adaptbench[gguf]'",
        )
    if not file.is_file():
        raise DataMissing(f"{file}: no such file", hint="give the path of a .gguf file")
    try:
        with quiet():
            model = transformers.AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise DataMissing(
            f"{file}: {_first_line(error)}", hint="the file is damaged, or no model that transformers reads"
        ) from error
    return _finished(name, file, model, "causal", sha256(file), fills=True, **about)


def _finished(
    name: str, where: Path, model: Any, architecture: Architecture, digest: str, *, fills: bool, **about: Any
) -> LanguageModel:
    tokenizer = _tokenizer(where)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        raise DataMissing(
            f"{where}: its tokenizer has {len(tokenizer)} tokens, but the model embeds {vocabulary}",
            hint="tokenizer and model are not of one kind: get both from the same place",
        )
    if architecture == "masked" and tokenizer.mask_token_id is None:
        raise DataMissing(
            f"{where}: a masked model ({type(model).__name__}), but its tokenizer has no mask token",
            hint="tokenizer and model are not of one kind: get both from the same place",
        )
    install(model)
    return LanguageModel(
        name=name,
        sha256=digest,
        model=model.requires_grad_(False).eval(),
        tokenizer=tokenizer,
        architecture=architecture,
        fills=fills,
        tokenizer_sha256=hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        **about,
    )


def _architecture(config: Any) -> Architecture:
    """What kind of model a configuration describes.

    Raises:
        UsageError: None that can be used.
    """
    kind = config.model_type
    written = " ".join(config.architectures or ())
    if (
        getattr(config, "is_encoder_decoder", False)
        and kind in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    ):
        return "encoder-decoder"
    if kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (
        "CausalLM" in written or "LMHead" in written or kind not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    ):
        return "causal"
    if kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "masked"
    raise UsageError(
        f"a model of type `{kind}` is no language model that can be used here",
        hint="use a masked (BERT, ModernBERT), causal (GPT-2, Llama) or encoder-decoder model (T5, BART)",
    )


def _model(folder: Path, config: Any, architecture: Architecture, files: list[Path]) -> tuple[Any, bool]:
    """The model with its head over words, or without where the file has none.

    Raises:
        DataMissing: Weights are missing, or of another shape.
    """
    options = {"dtype": torch.float32, "local_files_only": True, "output_loading_info": True, "use_safetensors": True}
    options["ignore_mismatched_sizes"] = True  # they are told, and refused below
    model, told = AUTO[architecture].from_pretrained(folder, config=config, **options)
    inner = f"{model.base_model_prefix}."
    missing = sorted(told["missing_keys"])
    fills = all(key.startswith(inner) for key in missing)
    if not fills:
        model, told = transformers.AutoModel.from_pretrained(folder, config=config, **options)
        missing = sorted(told["missing_keys"])
        inner = ""
    if getattr(model.base_model, "pooler", None) is not None and any("pooler" in key for key in missing):
        model.base_model.pooler = None
        missing = [key for key in missing if "pooler" not in key]
    wrong = [*missing, *sorted(str(one[0]) for one in told["mismatched_keys"])]
    if wrong:
        raise DataMissing(
            f"{folder}: no weights for `{wrong[0]}`, or of another shape ({len(wrong)} in all)",
            hint="config.json and the weights are not of one model: get both from the same place",
        )
    if getattr(model.base_model, "pooler", None) is None:
        _with_pooler(model.base_model, config, files)
    return model, fills


def _with_pooler(base: Any, config: Any, files: list[Path]) -> None:
    """Keeps the pretrained pooler, which models with a head over words leave out."""
    for path in files:
        with safe_open(path, "pt") as stored:
            names = [name for name in stored.keys() if name.endswith("pooler.dense.weight")]  # noqa: SIM118 - no mapping
            if not names:
                continue
            pooler = getattr(transformers.AutoModel.from_config(config), "pooler", None)
            if pooler is None:
                return
            stem = names[0].removesuffix("dense.weight")
            pooler.load_state_dict({key: stored.get_tensor(stem + key) for key in pooler.state_dict()})
            base.pooler = pooler
            return


def _tokenizer(where: Path) -> Any:
    options: dict[str, Any] = {"local_files_only": True, "clean_up_tokenization_spaces": False}
    folder = where
    if where.is_file():
        folder, options["gguf_file"] = where.parent, where.name
    elif not any((where / file).is_file() for file in VOCABULARIES):
        raise DataMissing(f"{where}: no tokenizer", hint=f"it needs one of {', '.join(VOCABULARIES)}")
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise DataMissing(
            f"{where}: its tokenizer cannot be read: {_first_line(error)}", hint="get tokenizer.json of the model"
        ) from error
    if not tokenizer.is_fast:
        raise DataMissing(f"{where}: its tokenizer has no tokenizer.json", hint="save it once as a fast tokenizer")
    return tokenizer


def _joined(digests: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
