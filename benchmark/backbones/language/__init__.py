"""Pretrained language models: one interface to masked, causal and encoder-decoder models of transformers."""

from __future__ import annotations

from benchmark.backbones.language.model import Architecture, LanguageModel, Prefix, Sites
from benchmark.backbones.language.prefixes import Form, PrefixEncoder, Prefixes, PrefixInit
from benchmark.backbones.language.templates import Encoded, Layout, Template, Tokens, by_length, ids_on, padded

__all__ = [
    "Architecture",
    "Encoded",
    "Form",
    "LanguageModel",
    "Layout",
    "Prefix",
    "PrefixEncoder",
    "PrefixInit",
    "Prefixes",
    "Sites",
    "Template",
    "Tokens",
    "by_length",
    "ids_on",
    "padded",
]
