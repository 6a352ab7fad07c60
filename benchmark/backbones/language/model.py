"""A pretrained language model as methods use it: tokens in, hidden states, logits of words or new words out.

One class stands for masked (BERT, RoBERTa, ModernBERT), causal (GPT-2, Llama) and encoder-decoder models (T5, BART) of
transformers. Whatever a method adds comes in by one of three doors, the same for all of them:

* ``embeds``: embeddings instead of those of the tokens (soft prompts in the text, P-tuning, prompt tuning);
* ``prefix``: keys and values in front of those of every layer (prefix-tuning, P-tuning v2);
* the model's own parameters, switched on by the method that trains them.

Nothing here imports transformers: who loads a model has done so. It is one file, as it is one class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from benchmark.backbones.backbone import Pretrained
from benchmark.backbones.language import attention
from benchmark.backbones.language.templates import Encoded, Layout, Template, Tokens, padded
from benchmark.errors import UsageError

Architecture = Literal["masked", "causal", "encoder-decoder"]
Site = Literal["self", "encoder", "cross"]
Prefix = Mapping[Site, Tensor]
"""Keys and values ``(L, 2, 1 or B, g, P, d)`` for the attentions of a site; ``self`` is that of a decoder, or the only
one."""


@dataclass(frozen=True)
class Sites:
    """The attentions of a model, where a prefix can stand.

    Attributes:
        modules: Of each site, in the order of the layers.
        heads: Number g of heads that have keys of their own.
        width: Width d of a head.
    """

    modules: Mapping[Site, tuple[nn.Module, ...]]
    heads: int
    width: int


@dataclass(frozen=True, kw_only=True)
class LanguageModel(Pretrained):
    """A pretrained transformer over tokens, and the tokenizer that belongs to it.

    Methods build their own token sequences from the fields of an example (`template`): nobody tokenizes for them.

    Attributes:
        model: Of transformers, with a head over words if there is one, in eval mode, using `attention.attend`.
        tokenizer: Of transformers.
        architecture: ``masked`` (fills gaps), ``causal`` (goes on), ``encoder-decoder``.
        fills: Whether the head over words was pretrained; without, no word can be asked for.
        tokenizer_sha256: Hash of the tokenizer; in the record and in the identity of a run.
    """

    what: ClassVar[str] = "a language model"
    reads: ClassVar[Literal["image", "text"]] = "text"

    model: Any
    tokenizer: Any
    architecture: Architecture
    fills: bool = True
    tokenizer_sha256: str = ""
    _found: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def module(self) -> nn.Module:
        """The model."""
        found: nn.Module = self.model
        return found

    @property
    def width(self) -> int:
        """Width D of embeddings and hidden states."""
        return int(self.embedding.weight.shape[1])

    @property
    def embedding(self) -> nn.Embedding:
        """The table of word embeddings ``(V, D)``."""
        found: nn.Embedding = self.model.get_input_embeddings()
        return found

    @property
    def context(self) -> int:
        """Most tokens of an input, those of soft prompts included."""
        config = self.model.config
        known = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
        limits = [int(limit) for limit in (*known, self.tokenizer.model_max_length) if limit and 0 < limit < 10**6]
        if self._pads_positions:
            limits = [limit - self._first_position if limit == known[0] else limit for limit in limits]
        return min(limits, default=512)

    @property
    def pad(self) -> int:
        """Id that fills up; it is masked, so that any would do."""
        found = self.tokenizer.pad_token_id
        return int(found if found is not None else self.tokenizer.eos_token_id or 0)

    @property
    def blank(self) -> int | None:
        """Id of the mask; None where a model goes on instead."""
        if self.architecture == "encoder-decoder":
            return None
        return int(self.tokenizer.mask_token_id) if self.architecture == "masked" else None

    @cached_property
    def layout(self) -> Layout:
        """How its tokenizer writes texts."""
        return Layout(self.tokenizer)

    def template(self, pattern: str, *, max_length: int = 0, keep: Sequence[str] = (), added: int = 0) -> Template:
        """A pattern for this model.

        Args:
            pattern: See `benchmark.backbones.language.templates`.
            max_length: Most tokens; 0: as many as the model takes.
            keep: Fields that are never shortened.
            added: How many positions the method adds to every example by itself.

        Raises:
            UsageError: The pattern is none, or none for this model; or the method leaves no place for a text.
        """
        room = self.context - added
        if room < 1:
            raise UsageError(
                f"{added} positions of the method leave no place for a text: {self.name} takes {self.context} in all",
                hint="lower `length`, or `longest`",
            )
        limit = min(max_length, room) if max_length else room
        return Template(
            pattern,
            self.layout,
            max_length=limit,
            blank=self.blank,
            keep=keep,
            place=self.pad,
            ends=self.architecture != "causal",
        )

    def batch(self, rows: Sequence[Encoded], *, writing: bool = False) -> Tokens:
        """One padded batch of examples, on the model's device.

        Args:
            rows: The examples.
            writing: Whether it goes to `generate`: then the padding of a causal model stands in front.
        """
        left = writing and self.architecture == "causal"
        return padded(rows, pad=self.pad, device=self.embedding.weight.device, left=left)

    def word(self, word: str) -> int:
        """The id of a word that is one token.

        Raises:
            UsageError: It is several tokens, or unknown to the tokenizer.
        """
        ids = self.layout.ids(word)
        unknown = self.tokenizer.unk_token_id
        if len(ids) != 1 or ids[0] == unknown:
            parts = self.tokenizer.convert_ids_to_tokens(list(ids))
            reason = "unknown to" if unknown in ids else f"{len(ids)} tokens ({' '.join(parts)}) for"
            raise UsageError(
                f"word `{word}` is {reason} the tokenizer of {self.name}",
                hint="choose words of one token for the classes (option `words`)",
            )
        return ids[0]

    # ---- running

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings ``(..., D)`` of tokens as the model itself looks them up."""
        found: Tensor = self.embedding(ids)
        return found

    def hidden(self, tokens: Tokens, *, embeds: Tensor | None = None, prefix: Prefix | None = None) -> Tensor:
        """Last hidden states ``(B, n, D)`` of a masked or causal model, or those of an encoder.

        Args:
            tokens: B examples of n tokens.
            embeds: Instead of the embeddings of the tokens, ``(B, n, D)``.
            prefix: In front of the keys and values of every layer.
        """
        base = self.model.get_encoder() if self.architecture == "encoder-decoder" else self.model.base_model
        with self._with(prefix):
            found: Tensor = base(**self._inputs(tokens, embeds)).last_hidden_state
        return found

    def logits(
        self, tokens: Tokens, at: Tensor | None = None, *, embeds: Tensor | None = None, prefix: Prefix | None = None
    ) -> Tensor:
        """Logits of words of a masked or causal model.

        Args:
            tokens: B examples of n tokens.
            at: Positions ``(B, k)``; default: all. Only there is the head over words computed.
            embeds: As for `hidden`.
            prefix: As for `hidden`.

        Returns:
            ``(B, k, V)``.
        """
        with ExitStack() as stack:
            stack.enter_context(self._with(prefix))
            if at is not None:
                stack.enter_context(self._only(at))
            found: Tensor = self.model(**self._inputs(tokens, embeds), **self._no_cache).logits
        return found

    def target_logits(
        self,
        tokens: Tokens,
        target: Tensor,
        target_mask: Tensor | None = None,
        *,
        embeds: Tensor | None = None,
        prefix: Prefix | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Logits ``(B, m, V)`` of an encoder-decoder for what its decoder is given.

        Args:
            tokens: What the encoder reads.
            target: What the decoder reads, ``(B, m)``, its start included.
            target_mask: 1 where that is no padding.
            embeds: As for `hidden`, of the encoder.
            prefix: As for `hidden`.
            hidden: What `hidden` returned for the tokens, where it is known: the encoder then reads nothing.
        """
        read = self._inputs(tokens, embeds) if hidden is None else {"attention_mask": tokens.mask}
        with self._with(prefix):
            found: Tensor = self.model(
                **read,
                encoder_outputs=None if hidden is None else (hidden,),
                decoder_input_ids=target,
                decoder_attention_mask=target_mask,
                **self._no_cache,
            ).logits
        return found

    def pooled(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        """The state ``(B, D)`` that a classifier reads.

        That of the pretrained pooler where there is one (BERT), of the last token of a causal model, else of the
        first token.
        """
        if self.architecture == "causal":
            return hidden[torch.arange(len(hidden), device=hidden.device), tokens.last.squeeze(1)]
        pooler = getattr(self.model.base_model, "pooler", None)
        found: Tensor = hidden[:, 0] if pooler is None else pooler(hidden)
        return found

    def words(self, hidden: Tensor) -> Tensor:
        """The head over words ``(..., V)`` on last hidden states of a masked or causal model."""
        one = torch.ones(1, 1, dtype=torch.int64, device=hidden.device)
        stand_in = Tokens(self.pad * one, one, 0 * one)
        flat = hidden.reshape(1, -1, hidden.shape[-1])

        def replace(module: nn.Module, inputs: Any, output: Any) -> Any:
            output.last_hidden_state = flat
            return output

        with _hook(self.model.base_model, replace):
            logits = self.model(**self._inputs(stand_in, None), **self._no_cache).logits
        found: Tensor = logits.reshape(*hidden.shape[:-1], -1)
        return found

    @torch.no_grad()
    def generate(
        self,
        tokens: Tokens,
        *,
        longest: int,
        beams: int = 1,
        embeds: Tensor | None = None,
        prefix: Prefix | None = None,
        **options: Any,
    ) -> list[str]:
        """What a causal or encoder-decoder model writes, without the tokens of the input.

        Args:
            tokens: B examples (`batch` with ``writing``).
            longest: Most new tokens.
            beams: 1 takes the likeliest token each time, more search with beams.
            embeds: As for `hidden`.
            prefix: As for `hidden`; it stays in front of every step.
            **options: Of ``generate`` of transformers, e.g. ``length_penalty``.
        """
        inputs = self._inputs(tokens, embeds)
        inputs.pop("token_type_ids", None)
        ends = {"eos_token_id": self.tokenizer.eos_token_id, "pad_token_id": self.pad}
        with self._with(prefix):
            found = self.model.generate(
                **inputs,
                **{
                    **ends,
                    "do_sample": False,
                    "num_beams": beams,
                    "max_new_tokens": longest,
                    "max_length": None,
                    **options,
                },
            )
        if self.architecture == "causal" and embeds is None:
            found = found[:, tokens.ids.shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(found, skip_special_tokens=True)]

    @torch.no_grad()
    def keys_and_values(self, tokens: Tokens, *, embeds: Tensor | None = None) -> Prefix:
        """What a masked or causal model's attentions have as keys and values on an input, ready to be a prefix.

        A text behind it then has exactly the hidden states that it has behind the input itself, if the model is causal.
        """
        pairs: dict[nn.Module, attention.Pair] = {}
        with attention.observed(lambda module, _, key, value: pairs.__setitem__(module, (key, value))):
            self.hidden(tokens, embeds=embeds)
        return {"self": attention.stacked([pairs[module] for module in self.sites.modules["self"]])}

    @property
    def sites(self) -> Sites:
        """Its attentions, found by watching it read three tokens."""
        if "sites" not in self._found:
            self._found["sites"] = self._watched()
        found: Sites = self._found["sites"]
        return found

    @property
    def _no_cache(self) -> dict[str, bool]:
        return {} if self.architecture == "masked" else {"use_cache": False}

    @torch.no_grad()
    def _watched(self) -> Sites:
        both = self.architecture == "encoder-decoder"
        modules: dict[Site, list[nn.Module]] = {"self": [], "encoder": [], "cross": []}
        shapes = []

        def see(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> None:
            sides = query.shape[2], key.shape[2]
            where: Site = "cross" if sides[0] != sides[1] else "encoder" if both and sides[0] == 3 else "self"
            modules[where].append(module)
            shapes.append((key.shape[1], key.shape[3]))

        device = self.embedding.weight.device
        ids = torch.full((1, 3), self.pad, device=device)
        tokens = Tokens(ids, torch.ones_like(ids), torch.zeros_like(ids))
        was, random = self.model.training, torch.get_rng_state()
        self.model.eval()
        with attention.observed(see):
            if both:
                self.target_logits(tokens, ids[:, :2])
            else:
                self.hidden(tokens)
        self.model.train(was)
        torch.set_rng_state(random)
        if not shapes:
            raise UsageError(
                f"{self.name} does not call its attention through transformers' table of functions",
                hint="choose a model of a kind that does, e.g. BERT, RoBERTa, ModernBERT, GPT-2, Llama, T5, BART",
            )
        return Sites({site: tuple(found) for site, found in modules.items() if found}, *shapes[0])

    # ---- details of transformers

    def _inputs(self, tokens: Tokens, embeds: Tensor | None) -> dict[str, Any]:
        inputs: dict[str, Any] = {"attention_mask": tokens.mask}
        inputs |= {"input_ids": tokens.ids} if embeds is None else {"inputs_embeds": embeds}
        if getattr(self.model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = tokens.segments
        return inputs

    @contextmanager
    def _with(self, prefix: Prefix | None) -> Iterator[None]:
        """Puts a prefix in front; positions of a masked or causal model start behind it, as with the library's cache.

        BERT, GPT-2: transformers 4.11 and before count the cache. BART does not (the fork of XiangLi1999/PrefixTuning).
        """
        if prefix is None:
            yield
            return
        pairs: dict[nn.Module, attention.Pair] = {}
        for site, tensor in prefix.items():
            pairs |= {
                module: (layer[0], layer[1]) for module, layer in zip(self.sites.modules[site], tensor, strict=True)
            }
        with ExitStack() as stack:
            stack.enter_context(attention.prefixed(pairs))
            if self.architecture != "encoder-decoder":
                shift = next(iter(prefix.values())).shape[-2]
                handle = self.model.base_model.register_forward_pre_hook(self._shifted(shift), with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def _shifted(self, shift: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            places = kwargs.get("position_ids")
            if places is None:
                mask = kwargs["attention_mask"]
                given = args[0] if args else kwargs.get("input_ids")  # GPT-2 names all but this one
                length = (kwargs["inputs_embeds"] if given is None else given).shape[1]
                if self._pads_positions:
                    places = (mask.cumsum(1) * mask)[:, -length:] + self._first_position - 1
                else:
                    places = torch.arange(mask.shape[1], device=mask.device)[-length:].unsqueeze(0)
            return args, {**kwargs, "position_ids": places + shift}

        return hook

    @property
    def _pads_positions(self) -> bool:
        """Whether positions count real tokens only, from behind the id of the padding (RoBERTa and its kin)."""
        embeddings = getattr(self.model.base_model, "embeddings", None)
        return hasattr(embeddings, "create_position_ids_from_input_ids")

    @property
    def _first_position(self) -> int:
        return int(self.model.config.pad_token_id) + 1

    @contextmanager
    def _only(self, at: Tensor) -> Iterator[None]:
        """Within it, the head over words sees k positions of each example."""

        def gather(module: nn.Module, inputs: Any, output: Any) -> Any:
            hidden = output.last_hidden_state
            output.last_hidden_state = hidden.gather(1, at.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
            return output

        with _hook(self.model.base_model, gather):
            yield


@contextmanager
def _hook(module: nn.Module, hook: Any) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
