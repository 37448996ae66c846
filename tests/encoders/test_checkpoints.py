"""Where a words encoder starts from: real checkpoints, made here by the libraries that make them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, RobertaConfig, RobertaForMaskedLM, RobertaModel, RobertaTokenizerFast

from encoders.checkpoints import SPECIAL_TOKENS, CheckpointError, compact, roberta, word_piece_tokenizer
from encoders.dialogue import DialogueEncoderConfig
from encoders.turn import TurnEncoderConfig
from labelers.model import Model, ModelConfig
from schemas.log import Dialogue, Turn, validate
from schemas.ontology import Intent, Ontology, Service, SlotType

TEXTS = ["play the weeknd", "call anna please", "set a timer for ten minutes", "turn the lights off"]


@pytest.fixture(scope="module")
def roberta_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("roberta")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXTS, vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    vocabulary, merges = bpe.save_model(str(tmp_path_factory.mktemp("bpe")))
    RobertaTokenizerFast(vocab=vocabulary, merges=merges).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=bpe.get_vocab_size(), max_position_embeddings=514, type_vocab_size=1, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        RobertaForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    alphabet = [chr(code) for code in range(33, 127)]
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(128)
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=tokenizer.get_vocab_size(), **sizes)).save_pretrained(folder)
    return folder


def test_a_model_on_a_roberta_checkpoint_labels_and_keeps_its_weights(roberta_folder: Path, tmp_path: Path) -> None:
    checkpoint = roberta(str(roberta_folder))
    ontology = Ontology((Service("a", intents=(Intent("play_music"),), slots=(SlotType("artist"),)),))
    config = ModelConfig(
        TurnEncoderConfig(checkpoint.config, width=16), DialogueEncoderConfig(width=16, layers=1, heads=2)
    )
    model = Model(config, checkpoint.tokenizer, ontology)
    model.turn_encoder.words.load_state_dict(dict(checkpoint.weights))
    torch.nn.init.constant_(model.slots.tags.bias, 0.0)
    model.slots.tags.bias.data[1] = 100.0
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")

    text = "Play the wéeknd 🙂"
    (labels,) = loaded.label([validate(Dialogue(dialogue_id="a", turns=[Turn(text=text), Turn(text="no")]))])
    assert [turn.intent for turn in labels.turns] == ["play_music"] * 2
    slots = labels.turns[0].slots
    assert "".join(slot.value for slot in slots).startswith("Playthew")
    # Byte-level tokens begin with a space: spans do not.
    assert all(slot.value == text[slot.start : slot.end] == slot.value.strip() for slot in slots)
    same = RobertaModel.from_pretrained(roberta_folder, add_pooling_layer=False).state_dict()
    assert all(torch.equal(checkpoint.weights[name], tensor) for name, tensor in same.items())


def _edit_config(**changes: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return edit


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk" * 99), "header too large"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON"),
        (lambda folder: (folder / "config.json").unlink(), "Unrecognized model"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
        (_edit_config(hidden_size="wide"), "hidden_size"),
        (_edit_config(hidden_size=32), "cannot be loaded"),
        (_edit_config(num_hidden_layers=2), "it has no weights encoder.layer.1"),
        (_edit_config(model_type="bert"), "is a bert, not a RoBERTa"),
        (_edit_config(max_position_embeddings=100), "cannot be loaded|reads too short a text"),
    ],
)
def test_an_unusable_checkpoint_is_one_sentence(
    spoil: Callable[[Path], object], message: str, roberta_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(roberta_folder, tmp_path / "copy")
    spoil(folder)
    with pytest.raises(CheckpointError, match=message) as raised:
        roberta(str(folder))
    assert "\n" not in str(raised.value)


def test_compact_computes_what_the_lower_layers_of_the_bert_do(bert_folder: Path) -> None:
    checkpoint = compact(bert_folder, TEXTS, vocabulary_size=280, layers=2)
    small = RobertaModel(RobertaConfig(**checkpoint.config), add_pooling_layer=False).eval()
    small.load_state_dict(dict(checkpoint.weights))
    bert = BertModel.from_pretrained(bert_folder, add_pooling_layer=False).eval()
    original = Tokenizer.from_file(str(bert_folder / "tokenizer.json"))

    text = "set the lights for Anna"
    pieces = original.encode(text)
    ours = checkpoint.tokenizer.encode(text, add_special_tokens=False)
    assert ours.tokens == pieces.tokens[1:-1]
    begin, end = (checkpoint.tokenizer.token_to_id(token) for token in ("<s>", "</s>"))
    with torch.inference_mode():
        wanted = bert(torch.tensor([pieces.ids]), output_hidden_states=True).hidden_states[2]
        got = small(torch.tensor([[begin, *ours.ids, end]])).last_hidden_state
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_compact_keeps_frequent_pieces_and_single_characters(bert_folder: Path) -> None:
    tokenizer = compact(bert_folder, ["weeknd"] * 5, vocabulary_size=250, layers=1).tokenizer
    assert tokenizer.get_vocab_size() <= 250
    assert set(SPECIAL_TOKENS) < tokenizer.get_vocab().keys()
    assert "<unk>" not in tokenizer.encode("timer lights").tokens


@pytest.mark.parametrize(("text", "number"), [("to 21°", "21"), ("send £50 now", "50"), ("5½ km", "5"), ("40€", "40")])
def test_a_number_is_read_beside_a_symbol_that_is_not(text: str, number: str) -> None:
    vocabulary = [*SPECIAL_TOKENS, "to", "send", "now", "km", "21", "50", "5", "40"]
    tokenizer = word_piece_tokenizer({token: index for index, token in enumerate(vocabulary)})
    encoding = tokenizer.encode(text, add_special_tokens=False)
    assert sorted(set(encoding.tokens) - {"to", "send", "now", "km"}) == sorted(["<unk>", number])
    assert "".join(text[start:end] for start, end in encoding.offsets) == text.replace(" ", "")


def test_compact_of_more_layers_than_there_are_is_refused(bert_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a BERT of at least 9 layers"):
        compact(bert_folder, TEXTS, vocabulary_size=280, layers=9)
