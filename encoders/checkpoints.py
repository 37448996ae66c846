"""Where a words encoder starts from: any RoBERTa checkpoint, or a compact RoBERTa cut out of a BERT.

BERT (Devlin et al. 2019) and RoBERTa (Liu et al. 2019) are the same network but for the vocabulary and where
positions begin, so the lower layers and the frequent word pieces of a small BERT make a compact RoBERTa: dropping
the upper layers keeps most of what was learned (Sajjad et al. 2023, *On the effect of dropping layers of
pre-trained Transformer models*).
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, RobertaModel

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""In RoBERTa's order: the padding id must be 1, positions begin after it."""
MAX_TOKENS = 256
"""Longest sequence, in tokens: the top of `encoders.packing.LENGTHS`, to which a turn is padded."""


class CheckpointError(ValueError):
    """The checkpoint cannot be used; the message says why."""


class Checkpoint(NamedTuple):
    """A words encoder to start from."""

    config: dict[str, Any]
    """of transformers' RobertaConfig"""
    weights: Mapping[str, Tensor]
    """of transformers' RobertaModel, without a pooler"""
    tokenizer: Tokenizer


def roberta(name_or_folder: str) -> Checkpoint:
    """Any RoBERTa checkpoint: a local folder, or a name on the hub (which the user asked for by giving it).

    Raises `CheckpointError` for anything that is not a RoBERTa with safetensors weights.
    """
    try:
        # Said, so that nobody is asked whether to run code that came with it.
        config = AutoConfig.from_pretrained(name_or_folder, trust_remote_code=False)
        if config.model_type != "roberta":
            raise CheckpointError(f"{name_or_folder} is a {config.model_type}, not a RoBERTa.")
        model, report = RobertaModel.from_pretrained(
            name_or_folder, add_pooling_layer=False, use_safetensors=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(
            name_or_folder, use_fast=True, trust_remote_code=False
        ).backend_tokenizer
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _unusable(name_or_folder, str(error).splitlines()[0].rstrip(".:")) from error
    # transformers makes up what a checkpoint lacks: weights at random, a vocabulary of the special tokens alone.
    if report["missing_keys"]:
        raise _unusable(name_or_folder, f"it has no weights {min(report['missing_keys'])}")
    if not set(SPECIAL_TOKENS) < tokenizer.get_vocab().keys():
        raise _unusable(name_or_folder, "it has no tokenizer with RoBERTa's special tokens")
    if config.max_position_embeddings - config.pad_token_id - 1 < MAX_TOKENS:
        raise CheckpointError(f"{name_or_folder} reads too short a text: a turn can have {MAX_TOKENS} tokens.")
    return Checkpoint(config.to_dict(), model.state_dict(), tokenizer)


def _unusable(name_or_folder: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{name_or_folder} cannot be loaded as a RoBERTa checkpoint ({why}): "
        "give a folder with config.json, model.safetensors and a tokenizer, or a name on the hub."
    )


def compact(bert: Path, texts: Iterable[str], *, vocabulary_size: int, layers: int) -> Checkpoint:
    """The lowest `layers` of the BERT in the folder `bert`, with the word pieces that are frequent in `texts`.

    The folder needs `config.json`, `model.safetensors` and `tokenizer.json`. Every Latin character and currency sign of
    its vocabulary is kept, so that rare words fall apart rather than vanish.
    """
    config = json.loads((bert / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "bert" or config["num_hidden_layers"] < layers:
        raise CheckpointError(f"{bert} is not a BERT of at least {layers} layers.")
    weights = safetensors.torch.load_file(bert / "model.safetensors")
    original = Tokenizer.from_file(str(bert / "tokenizer.json"))
    original.no_padding()
    original.no_truncation()
    pieces = _frequent_pieces(original, texts, vocabulary_size - len(SPECIAL_TOKENS))
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *pieces))}
    old_special = dict(zip(SPECIAL_TOKENS, ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"), strict=True))
    rows = torch.tensor([original.token_to_id(old_special.get(token, token)) for token in vocabulary])
    new = {
        name: tensor
        for name, tensor in weights.items()
        if name.startswith("encoder.layer.") and int(name.split(".")[2]) < layers
    }
    padding = SPECIAL_TOKENS.index("<pad>")
    embeddings = "embeddings.{}_embeddings.weight".format
    positions = weights[embeddings("position")][:MAX_TOKENS]
    new |= {
        embeddings("word"): weights[embeddings("word")][rows],
        embeddings("token_type"): weights[embeddings("token_type")][:1],
        embeddings("position"): torch.cat([torch.zeros_like(positions[: padding + 1]), positions]),
        "embeddings.LayerNorm.weight": weights["embeddings.LayerNorm.weight"],
        "embeddings.LayerNorm.bias": weights["embeddings.LayerNorm.bias"],
    }
    return Checkpoint(
        {
            "vocab_size": len(vocabulary),
            "hidden_size": config["hidden_size"],
            "num_hidden_layers": layers,
            "num_attention_heads": config["num_attention_heads"],
            "intermediate_size": config["intermediate_size"],
            "hidden_act": config["hidden_act"],
            "layer_norm_eps": config["layer_norm_eps"],
            "max_position_embeddings": MAX_TOKENS + padding + 1,
            "type_vocab_size": 1,
            "bos_token_id": vocabulary["<s>"],
            "pad_token_id": padding,
            "eos_token_id": vocabulary["</s>"],
        },
        new,
        word_piece_tokenizer(vocabulary),
    )


def word_piece_tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    """A lower-casing word-piece tokenizer (Wu et al. 2016) with RoBERTa's special tokens."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    # A symbol that the vocabulary lacks would take the number beside it along: `21°` and `28°` would read alike.
    symbols = pre_tokenizers.Split(Regex(r"[\p{S}\p{No}]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([symbols, pre_tokenizers.BertPreTokenizer()])
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _frequent_pieces(tokenizer: Tokenizer, texts: Iterable[str], size: int) -> list[str]:
    counts: Counter[str] = Counter()
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == 10_000:
            counts.update(_pieces(tokenizer, batch))
            batch = []
    counts.update(_pieces(tokenizer, batch))
    vocabulary = tokenizer.get_vocab()
    kept = dict.fromkeys(sorted(token for token in vocabulary if _is_common(token.removeprefix("##"))))
    for piece, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if len(kept) >= size:
            break
        kept.setdefault(piece)
    return list(kept)[:size]


def _is_common(piece: str) -> bool:
    """Whether it is one character of Latin script, which ends at U+024F, or a currency sign."""
    return len(piece) == 1 and (piece <= "\u024f" or unicodedata.category(piece) == "Sc")


def _pieces(tokenizer: Tokenizer, texts: list[str]) -> Iterable[str]:
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        yield from (token for token in encoding.tokens if not token.startswith("["))
