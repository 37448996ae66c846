"""What tests of several packages need."""

from __future__ import annotations

import os
import string
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model of the smallest sizes with random weights, saved."""
    import torch

    from encoders.checkpoints import MAX_TOKENS, SPECIAL_TOKENS, word_piece_tokenizer
    from encoders.dialogue import DialogueEncoderConfig
    from encoders.turn import TurnEncoderConfig
    from labelers.model import Model, ModelConfig
    from schemas.ontology import Intent, Ontology, Service, SlotType

    letters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    roberta = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": MAX_TOKENS + 2,
        "type_vocab_size": 1,
        "bos_token_id": vocabulary["<s>"],
        "pad_token_id": vocabulary["<pad>"],
        "eos_token_id": vocabulary["</s>"],
    }
    ontology = Ontology(
        services=(Service("music", intents=(Intent("play_music"), Intent("stop_music")), slots=(SlotType("artist"),)),)
    )
    config = ModelConfig(
        TurnEncoderConfig(roberta, width=16, dropout=0.1, word_dropout=0.0),
        DialogueEncoderConfig(width=16, layers=1, heads=2, dropout=0.1),
    )
    folder = tmp_path_factory.mktemp("tiny-model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Model(config, word_piece_tokenizer(vocabulary), ontology).save(folder)
    return folder
