"""Dialogues in, labels out; and the folder that holds a model."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import safetensors.torch
import torch
from cachetools import LRUCache
from tokenizers import Tokenizer

import labelers
from encoders.kept import KeptVectors
from labelers.base import Encoded
from labelers.model import CONFIG, MANIFEST, TOKENIZER, WEIGHTS, Model, ModelError
from schemas.labels import DialogueLabels, Label
from schemas.log import AsrHypothesis, Dialogue, FailurePoint, NluHypothesis, Response, Slot, Turn, validate
from schemas.ontology import Intent, Ontology, Service

BUILTIN = Path(labelers.__file__).parent / "builtin"


def _dialogue(name: str, *turns: Turn) -> Dialogue:
    return validate(Dialogue(dialogue_id=name, turns=list(turns)))


def _short() -> Dialogue:
    nlu = [NluHypothesis(intent="play_music", slots=[Slot(name="artist", value="weeknd")], score=0.4)]
    asr = [AsrHypothesis(text="play the weeknd", score=0.5), AsrHypothesis(text="play weekend", score=0.2)]
    return _dialogue("short", Turn(asr=asr, nlu=nlu, response=Response(text="ok")), Turn(text="no"))


def _plain(turns: int) -> Dialogue:
    said = [[AsrHypothesis(text=f"turn number {index}")] for index in range(turns)]
    return _dialogue(f"plain-{turns}", *(Turn(asr=asr) for asr in said))


def _assert_finite(labels: DialogueLabels) -> None:
    for turn in labels.turns:
        assert math.isclose(sum(turn.failure_point_probabilities.values()), 1, abs_tol=1e-5)
        assert all(0 <= slot.confidence <= 1 for slot in turn.slots)
        assert turn.intent_confidence is not None
        assert 0 <= turn.intent_confidence <= 1
    assert all(0.5 <= goal.success_confidence <= 1 for goal in labels.goals)
    assert 0.5 <= labels.success_confidence <= 1


# Labelling


def test_company_changes_nothing(encode: Callable[[Sequence[Dialogue]], Encoded]) -> None:
    alone, together = encode([_short()]), encode([_plain(70), _short(), _plain(3)])
    torch.testing.assert_close(together.states[70:72], alone.states, atol=1e-4, rtol=1e-4)


def test_order_changes_nothing(model: Model) -> None:
    dialogues = [_short(), _plain(9), _plain(1), _plain(40)]
    forwards, backwards = model.label(dialogues), model.label(dialogues[::-1])[::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert one.dialogue_id == other.dialogue_id
        for turn, same in zip(one.turns, other.turns, strict=True):
            assert turn.failure_point_probabilities == pytest.approx(same.failure_point_probabilities, abs=1e-4)


@pytest.mark.parametrize(
    "turns",
    [
        [Turn(text="hi")],
        [Turn(text="hi"), Turn(text="ho"), Turn(text="hi")],
        [Turn(asr=[AsrHypothesis(text="")])],
        [Turn(asr=[AsrHypothesis(text="")]), Turn(text="hi")],
        [Turn(text="\ud83d \x00\x07 \u202eevil\u200f")],
        [Turn(text="hi", wake_score=1e308, asr=[AsrHypothesis(text="hi", score=-1e308)])],
    ],
    ids=["text-alone", "texts-alone", "empty", "empty-first", "awkward", "huge-scores"],
)
def test_whatever_is_missing_the_labels_are_numbers(turns: list[Turn], model: Model) -> None:
    (labels,) = model.label([_dialogue("a", *turns)])
    assert [turn.turn_index for turn in labels.turns] == list(range(len(turns)))
    _assert_finite(labels)


def test_no_dialogues_have_no_labels(model: Model) -> None:
    assert model.label([]) == []


def test_a_dialogue_of_3000_turns_is_labelled_whole(model: Model) -> None:
    (labels,) = model.label([_plain(3_000)])
    assert [turn.turn_index for turn in labels.turns] == list(range(3_000))
    assert sorted(index for goal in labels.goals for index in goal.turn_indexes) == list(range(3_000))
    _assert_finite(labels)


def test_a_state_far_from_the_ends_of_its_window_is_the_same_in_any_long_dialogue(model: Model) -> None:
    # Turn vectors that repeat every 32 turns, as windows do: the state of a turn must repeat, too.
    vectors = torch.randn(32, 16, generator=torch.Generator().manual_seed(0)).repeat(10, 1)
    with torch.inference_mode():
        states = model.encode_turns_in_dialogues(vectors, [320], [0]).view(10, 32, 16)
    torch.testing.assert_close(states[2:-2], states[3:-1], atol=1e-5, rtol=1e-5)


def test_a_huge_utterance_is_shortened_counted_and_its_slots_are_in_place(model: Model) -> None:
    model.slots.tags.bias.data += torch.tensor([0.0, 100.0, 0.0])
    text = "say " + "blah " * 20_000
    long, short = model.label([_dialogue("long", Turn(text=text)), _dialogue("short", Turn(text="say"))])
    assert (long.shortened_turns, short.shortened_turns) == (1, 0)
    assert len(long.turns[0].slots) > 10
    assert all(slot.value == text[slot.start : slot.end] != "" for slot in long.turns[0].slots)


@pytest.mark.parametrize(
    ("short", "long", "found"),
    [("play jazz", "play" + " " * 5_000 + "jazz", ["play"]), ("la " * 32, "la " * 40, ["la"] * 24)],
    ids=["characters", "tokens"],
)
@pytest.mark.parametrize("turned", [False, True])
def test_slots_are_in_place_beside_a_request_that_reads_as_what_was_kept_of_a_huge_one(
    short: str, long: str, found: list[str], turned: bool, model: Model
) -> None:
    model.slots.tags.bias.data += torch.tensor([0.0, 100.0, 0.0])
    wanted = [(short, short.split()), (long, found)]
    if turned:
        wanted.reverse()
    (labels,) = model.label([_dialogue("both", *(Turn(text=text) for text, _ in wanted))])
    for turn, (text, values) in zip(labels.turns, wanted, strict=True):
        assert [slot.value for slot in turn.slots] == values
        assert all(text[slot.start : slot.end] == slot.value for slot in turn.slots)


def test_threads_share_a_model(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(LRUCache):  # type: ignore[misc]
        """Lets other threads go on between a look and a read."""

        def __contains__(self, key: object) -> bool:
            found = super().__contains__(key)
            time.sleep(1e-3)
            return bool(found)

    def labelled(name: str) -> bytes:
        slots = [Slot(name="artist", value=f"{name} {index}") for index in range(2)]
        turns = [Turn(text=name, nlu=[NluHypothesis(slots=slots)])] * 2
        ontology = Ontology((Service(name, intents=(Intent(f"{name} now"), Intent(f"not {name}"))),))
        return msgspec.json.encode(model.label([_dialogue(each, *turns) for each in ("a", "b", "c")], ontology))

    model._pairs = KeptVectors(2)
    model._pairs._rows = Slow(2)
    monkeypatch.setattr("labelers.model.GROUP_TURNS", 2)
    names = ["one", "two", "six"]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(labelled, names * 4)) == [labelled(name) for name in names] * 4


def test_slots_are_decoded_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode = model.slots.decode
    monkeypatch.setattr(model.slots, "decode", lambda *args: decoded.append(args) or decode(*args))
    heard = [NluHypothesis(intent="play_music", slots=[Slot(name="artist", value="abba")])]
    model.label([_dialogue("alone", Turn(asr=[AsrHypothesis(text="play abba")], nlu=heard))])
    assert len(decoded) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("to 21°", "to 28°"), ("send £50 to tom", "send £900 to tom"), ("40€", "5€")]
)
def test_the_builtin_model_tells_amounts_with_a_symbol_apart(one: str, other: str) -> None:
    tokenizer = Tokenizer.from_file(str(BUILTIN / TOKENIZER))
    assert tokenizer.encode(one).ids != tokenizer.encode(other).ids


def test_intents_come_from_the_ontology_that_is_given(model: Model) -> None:
    ontology = Ontology((Service("bank", intents=(Intent("transfer"), Intent("balance"))),))
    assert {turn.intent for turn in model.label([_plain(5)], ontology)[0].turns} <= {"transfer", "balance"}
    assert {turn.intent for turn in model.label([_plain(5)])[0].turns} <= {"play_music", "stop_music"}


def test_without_an_ontology_intents_are_unknown_and_slots_are_the_proposed(model: Model) -> None:
    model.slots.accept[-1].bias.data += torch.tensor([-100.0, 100.0])
    (labels,) = model.label([_short()], Ontology())
    assert [turn.intent for turn in labels.turns] == [None, None]
    assert all(Label.INTENT in turn.abstained for turn in labels.turns)
    assert [slot.value for slot in labels.turns[0].slots] == ["weeknd"]


def test_below_the_threshold_a_label_is_kept_and_marked(model: Model) -> None:
    (before,) = model.label([_short()])
    model.failure_point.threshold.fill_(2.0)
    (after,) = model.label([_short()])
    assert all(Label.FAILURE_POINT in turn.abstained for turn in after.turns)
    assert [turn.failure_point for turn in after.turns] == [turn.failure_point for turn in before.turns]


# Goals


CORRECT, ASR = [-9.0] * 5, [-9.0, 9.0, -9.0, -9.0, -9.0]


def _asked_again(model: Model, fixed: type[torch.nn.Module], hazards: list[list[float]], back: list[int]) -> None:
    """All turns are one goal; turn i asks again for what turn i - back[i] asked (0: for nothing)."""
    turns = len(hazards)
    model.failure_point.hazards = fixed(hazards)
    model.failure_point.evidence = fixed([[-max(row), *row] for row in hazards])
    model.rephrase.scorer = fixed([[9.0 * (k == each) for k in range(5)] for each in back])
    model.goal_segmentation.scorer = fixed([[9.0 * (k == (index > 0)) for k in range(13)] for index in range(turns)])


def test_a_goal_of_which_a_turn_failed_for_good_has_its_failure(model: Model, fixed: type[torch.nn.Module]) -> None:
    _asked_again(model, fixed, [CORRECT, ASR, CORRECT], [0, 0, 0])
    (goal,) = model.label([_plain(3)])[0].goals
    assert (goal.failure_point, goal.failure_turn) == (FailurePoint.ASR, 1)


def test_a_goal_recovers_when_asking_again_works(model: Model, fixed: type[torch.nn.Module]) -> None:
    _asked_again(model, fixed, [ASR, CORRECT], [0, 1])
    (goal,) = model.label([_plain(2)])[0].goals
    assert (goal.failure_point, goal.failure_turn) == (FailurePoint.CORRECT, None)


def test_a_goal_recovers_at_the_third_attempt(model: Model, fixed: type[torch.nn.Module]) -> None:
    _asked_again(model, fixed, [ASR, ASR, CORRECT], [0, 1, 1])
    (goal,) = model.label([_plain(3)])[0].goals
    assert (goal.failure_point, goal.failure_turn) == (FailurePoint.CORRECT, None)


def test_a_goal_does_not_recover_when_asking_again_fails(model: Model, fixed: type[torch.nn.Module]) -> None:
    _asked_again(model, fixed, [ASR, ASR], [0, 1])
    (goal,) = model.label([_plain(2)])[0].goals
    assert (goal.failure_point, goal.failure_turn) == (FailurePoint.ASR, 0)


def test_a_goal_recovers_when_asking_again_works_in_what_is_taken_for_another_goal(
    model: Model, fixed: type[torch.nn.Module]
) -> None:
    _asked_again(model, fixed, [ASR, CORRECT, ASR], [0, 1, 0])
    model.goal_segmentation.scorer = fixed([[9.0 * (k == 0) for k in range(13)]] * 3)
    goals = model.label([_plain(3)])[0].goals
    assert [goal.failure_point for goal in goals] == [FailurePoint.CORRECT, FailurePoint.CORRECT, FailurePoint.ASR]


def test_goal_ids_are_of_the_dialogue_and_each_starts_once(model: Model) -> None:
    (labels,) = model.label([_plain(30)])
    starts = [turn.goal_id for turn in labels.turns if turn.is_goal_start]
    assert starts == [goal.goal_id for goal in labels.goals]
    assert all(goal.goal_id.startswith("plain-30#") for goal in labels.goals)


# Files


def test_a_loaded_model_is_the_saved_one_bit_for_bit(model: Model, tmp_path: Path) -> None:
    model.round()
    version = model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    assert loaded.version == version
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name].to(tensor.dtype), tensor), name
    dialogues = [_short(), _plain(20)]
    assert msgspec.json.encode(loaded.float().label(dialogues)) == msgspec.json.encode(model.label(dialogues))


def test_the_words_encoder_is_stored_in_eight_bits(model: Model, tmp_path: Path) -> None:
    exact = model.turn_encoder.words.encoder.layer[0].attention.self.query.weight.detach().clone()
    model.round()
    model.save(tmp_path)
    stored = safetensors.torch.load_file(tmp_path / WEIGHTS)
    name = "turn_encoder.words.encoder.layer.0.attention.self.query.weight"
    assert stored[name].dtype == torch.int8
    loaded = Model.load(tmp_path).state_dict()[name].float()
    error = (loaded - exact).norm(dim=1) / exact.norm(dim=1)
    assert 0 < float(error.max()) < 0.03
    # Rounding again changes nothing.
    assert torch.equal(loaded, model.turn_encoder.words.encoder.layer[0].attention.self.query.weight)
    model.round()
    assert torch.equal(loaded, model.turn_encoder.words.encoder.layer[0].attention.self.query.weight)


def test_weights_that_bf16_does_not_hold_are_kept_in_full(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path)
    weight = Model.load(tmp_path).failure_point.hazards[0].weight
    assert not torch.equal(weight.to(torch.bfloat16).float(), weight)
    assert torch.equal(weight, model.failure_point.hazards[0].weight)


def test_saving_a_loaded_model_gives_the_same_version(tiny_model_dir: Path, tmp_path: Path) -> None:
    first = Model.load(tiny_model_dir)
    first.round()
    version = first.save(tmp_path / "one")
    assert Model.load(tmp_path / "one").save(tmp_path / "two") == version


def _seal(folder: Path) -> None:
    """Makes the manifest fit whatever the files are."""
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS, TOKENIZER)}
    (folder / MANIFEST).write_text(json.dumps(digests))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _configured(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))
    _seal(folder)


def _replaced(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    _seal(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        *((lambda folder, name=name: (folder / name).unlink(), f"lacks {name}") for name in (CONFIG, WEIGHTS)),
        *((lambda folder, name=name: (folder / name).unlink(), f"lacks {name}") for name in (TOKENIZER, MANIFEST)),
        (lambda folder: _flip(folder / WEIGHTS), f"{WEIGHTS} is not the file that was saved"),
        (lambda folder: _flip(folder / TOKENIZER), f"{TOKENIZER} is not the file that was saved"),
        (lambda folder: _configured(folder, format_version=99), "is of model format 99, this Faultline reads format 7"),
        (lambda folder: _configured(folder, model={}), "cannot be read"),
        (lambda folder: _replaced(folder, CONFIG, b"{}"), "cannot be read"),
        (lambda folder: _replaced(folder, WEIGHTS, b"junk" * 50), "header too large"),
        (lambda folder: _replaced(folder, TOKENIZER, b"{"), "cannot be read"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "cannot be read"),
        (shutil.rmtree, f"lacks {MANIFEST}"),
    ],
)
def test_an_unusable_folder_is_one_sentence(
    spoil: Callable[[Path], object], message: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    spoil(folder)
    with pytest.raises(ModelError, match=message) as raised:
        Model.load(folder)
    assert "\n" not in str(raised.value)


def test_a_model_on_something_else_than_a_roberta_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    tokenizer = (folder / TOKENIZER).read_text().replace("<s>", "[CLS]")
    _replaced(folder, TOKENIZER, tokenizer.encode())
    with pytest.raises(ModelError, match="a RoBERTa tokenizer is needed"):
        Model.load(folder)


def test_whoever_may_read_the_rest_of_a_saved_model_may_read_its_weights(tiny_model_dir: Path) -> None:
    assert len({(tiny_model_dir / name).stat().st_mode for name in (CONFIG, WEIGHTS, TOKENIZER, MANIFEST)}) == 1
