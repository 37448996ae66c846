"""What each labeler decides, and what it takes for the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch

from labelers.base import IGNORE, Encoded
from labelers.failure_point import POINTS
from labelers.intent import IntentLabel
from labelers.model import Model
from labelers.rephrase import RephraseLabel
from labelers.slots import SlotsLabel, proposed
from schemas.log import (
    AsrHypothesis,
    Dialogue,
    DialogueAnnotation,
    FailurePoint,
    GoalAnnotation,
    NluHypothesis,
    Slot,
    Turn,
    TurnAnnotation,
    validate,
)
from schemas.ontology import Intent, Ontology, Service, SlotType

Encode = Callable[[Sequence[Dialogue]], Encoded]


def _dialogue(*turns: Turn, annotation: DialogueAnnotation | None = None) -> Dialogue:
    return validate(Dialogue(dialogue_id="a", turns=list(turns), annotation=annotation))


def _plain(turns: int) -> Dialogue:
    return _dialogue(*(Turn(asr=[AsrHypothesis(text="hi")]) for _ in range(turns)))


def _annotated(*annotations: dict[str, object], of_dialogue: DialogueAnnotation | None = None) -> Dialogue:
    turns = [Turn(asr=[AsrHypothesis(text="the weeknd")], annotation=TurnAnnotation(**each)) for each in annotations]
    return _dialogue(*turns, annotation=of_dialogue)


# Failure point


def test_a_failure_point_is_the_first_that_fails_given_that_those_before_held(
    model: Model, encode: Encode, fixed: type[torch.nn.Module]
) -> None:
    hazards = torch.tensor([[0.1, 0.5, 0.2, 0.9, 0.3], [0.0, 0.9, 0.99, 0.99, 0.99], [1.0, 0.5, 0.5, 0.5, 0.5]])
    model.failure_point.hazards = fixed(torch.logit(hazards, eps=1e-9).tolist())
    encoded = encode([_plain(3)])
    evidence = torch.softmax(model.failure_point.evidence(encoded.numbers, encoded.categories), dim=-1)
    labels = model.failure_point.decode(encoded)
    for label, row, other in zip(labels, hazards.tolist(), evidence.tolist(), strict=True):
        held = 1.0
        for point, hazard, opinion in zip(POINTS[1:], row, other[1:], strict=True):
            assert label.probabilities[point] == pytest.approx((held * hazard + opinion) / 2, abs=1e-5)
            held *= 1 - hazard
        assert label.probabilities[FailurePoint.CORRECT] == pytest.approx((held + other[0]) / 2, abs=1e-5)
        assert sum(label.probabilities.values()) == pytest.approx(1)
    assert [label.point for label in labels] == [FailurePoint.ASR, FailurePoint.ASR, FailurePoint.WAKE]


def test_speech_recognition_is_not_to_blame_for_a_typed_request(
    model: Model, encode: Encode, fixed: type[torch.nn.Module]
) -> None:
    model.failure_point.hazards = fixed([[9.0, 9.0, -9.0, 9.0, -9.0]] * 3)
    model.failure_point.evidence = fixed([[0.0] * 6] * 3)
    spoken, typed = Turn(asr=[AsrHypothesis(text="hi")]), Turn(text="hi")
    woken = Turn(text="hi", wake_score=0.4)
    labels = model.failure_point.decode(encode([_dialogue(spoken, typed, woken)]))
    assert [label.point for label in labels] == [FailurePoint.WAKE, FailurePoint.ER, FailurePoint.WAKE]
    assert labels[1].probabilities[FailurePoint.ASR] < 1e-6
    assert labels[1].probabilities[FailurePoint.ER] == pytest.approx((1 + 1 / 4) / 2, abs=1e-3)


def test_a_noisy_target_is_held_against_the_sum_of_the_defects_and_where_they_share_it_against_each(
    model: Model, encode: Encode, fixed: type[torch.nn.Module]
) -> None:
    # Each of the components, in turn, fails half of the time.
    found = torch.tensor([1 / 32, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32])
    model.failure_point.hazards = fixed([[0.0] * 5] * 3)
    encoded = encode([_plain(3)])
    unknown = [torch.nan] * 6
    left_open = torch.tensor([[0.2, 0, 0, 0, 0, 0], unknown, unknown])
    shared = torch.tensor([unknown, [0.2, 0.1, 0.3, 0.2, 0.1, 0.1], unknown])
    binary = -0.2 * found[0].log() - 0.8 * (1 - found[0]).log()
    assert model.failure_point.feedback_loss(encoded, left_open) == pytest.approx(float(binary))
    assert model.failure_point.feedback_loss(encoded, shared) == pytest.approx(float(-(shared[1] * found.log()).sum()))
    assert model.failure_point.feedback_loss(encoded, torch.full((3, 6), torch.nan)) == 0


def test_extreme_hazards_give_a_finite_loss(model: Model, encode: Encode, fixed: type[torch.nn.Module]) -> None:
    model.failure_point.hazards = fixed([[1e4] * 5, [-1e4] * 5])
    encoded = encode([_annotated({"failure_point": FailurePoint.RESULT}, {"failure_point": FailurePoint.WAKE})])
    assert model.failure_point.loss(encoded).isfinite()


# Goals


def test_goals_may_interleave(model: Model, encode: Encode, fixed: type[torch.nn.Module]) -> None:
    # Opens; opens; resumes the first, two back; resumes the second, two back; goes on with it.
    back = [0, 0, 2, 2, 1]
    model.goal_segmentation.scorer = fixed([[9.0 * (k == each) for k in range(13)] for each in back])
    (turns,) = model.goal_segmentation.decode(encode([_plain(5)]))
    assert [turn.goal for turn in turns] == [0, 1, 0, 1, 1]
    assert [turn.is_start for turn in turns] == [True, True, False, False, False]


def test_earlier_turns_of_a_goal_speak_for_it_together(
    model: Model, encode: Encode, fixed: type[torch.nn.Module]
) -> None:
    scores = [[9.0] + [0.0] * 12, [0.0, 9.0] + [0.0] * 11, [1.5, 1.0, 1.0] + [-9.0] * 10]
    model.goal_segmentation.scorer = fixed(scores)
    (turns,) = model.goal_segmentation.decode(encode([_plain(3)]))
    assert [turn.goal for turn in turns] == [0, 0, 0]


def test_a_first_turn_opens_a_goal_without_doubt(model: Model, encode: Encode) -> None:
    model.goal_segmentation.threshold.fill_(0.999)
    (first, *_), (only,) = model.goal_segmentation.decode(encode([_plain(3), _plain(1)]))
    assert first.is_start
    assert not first.abstained
    assert not only.abstained


def test_goal_truth_is_the_nearest_turn_of_the_goal(model: Model, encode: Encode) -> None:
    encoded = encode([_annotated(*({"goal_id": goal} for goal in "aabab"), {})])
    assert model.goal_segmentation.targets(encoded).tolist() == [IGNORE, 1, 0, 2, 2, IGNORE]


def test_a_goal_lends_its_success_from_a_dialogue_of_one(model: Model, encode: Encode) -> None:
    one = _annotated({"goal_id": "a"}, {"goal_id": "a"}, of_dialogue=DialogueAnnotation(success=True))
    goals = [GoalAnnotation(goal_id="a", success=False), GoalAnnotation(goal_id="b")]
    two = _annotated({"goal_id": "a"}, {"goal_id": "b"}, of_dialogue=DialogueAnnotation(success=True, goals=goals))
    assert model.goal_evaluation.targets(encode([one, two])).tolist() == [1, 0, IGNORE]


@pytest.mark.parametrize("success", [True, False])
def test_the_success_of_a_whole_dialogue_trains_its_goals(success: bool, model: Model, encode: Encode) -> None:
    dialogue = _annotated({"goal_id": "a"}, {"goal_id": "b"}, of_dialogue=DialogueAnnotation(success=success))
    encoded = encode([dialogue])
    optimizer = torch.optim.Adam(model.goal_evaluation.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        model.goal_evaluation.loss(encoded).backward()
        optimizer.step()
    (reached,) = model.goal_evaluation.decode(encoded, [[[0], [1]]])
    assert all(goal.success for goal in reached) is success


@pytest.mark.parametrize("sure", [50.0, -50.0])
@pytest.mark.parametrize("success", [True, False])
def test_goals_that_are_all_sure_have_a_finite_gradient(
    sure: float, success: bool, model: Model, encode: Encode
) -> None:
    dialogue = _annotated({"goal_id": "a"}, {"goal_id": "b"}, of_dialogue=DialogueAnnotation(success=success))
    torch.nn.init.zeros_(model.goal_evaluation.score[-1].weight)
    model.goal_evaluation.score[-1].bias.data = torch.tensor([0.0, sure])
    model.goal_evaluation.loss(encode([dialogue])).backward()
    assert all(each.grad.isfinite().all() for each in model.goal_evaluation.parameters() if each.grad is not None)


def test_a_goal_is_as_likely_reached_beside_others_as_alone(model: Model, encode: Encode) -> None:
    encoded = encode([_dialogue(*(Turn(text=text) for text in ("one", "two", "three", "four", "five")))])
    goals = [[0, 2, 3], [1], [4]]
    with torch.no_grad():
        together = model.goal_evaluation.goal_logits(encoded, goals)
        alone = [model.goal_evaluation.goal_logits(encoded, [goal]) for goal in goals]
        first = encoded.states[goals[0]]
        pooled = torch.cat([first.mean(dim=0), first.amax(dim=0), first[-1]])
        torch.testing.assert_close(together[0], model.goal_evaluation.score(pooled))
    torch.testing.assert_close(together, torch.cat(alone))


# Rephrase


def _asked(failure_point: str | None, value: str = "the weeknd", **more: object) -> dict[str, object]:
    point = FailurePoint(failure_point) if failure_point else None
    return {"failure_point": point, "intent": "play", "slots": [Slot(name="artist", value=value)]} | more


@pytest.mark.parametrize(
    ("annotations", "wanted"),
    [
        ([_asked("asr"), _asked("correct")], [IGNORE, 1]),
        ([_asked("asr"), _asked("nlu"), _asked("correct", "The Weeknd")], [IGNORE, 1, 1]),
        ([_asked("asr"), _asked("correct", "adele"), _asked("correct")], [IGNORE, 0, 2]),
        ([_asked("correct"), _asked("correct")], [IGNORE, 0]),
        ([_asked("asr"), *[_asked("correct", str(n)) for n in range(4)], _asked("correct")], [IGNORE, 0, 0, 0, 0, 0]),
        ([_asked(None), _asked("correct")], [IGNORE, IGNORE]),
        ([_asked("asr"), _asked("correct", slots=[])], [IGNORE, 0]),
        ([_asked("asr", slots=[]), _asked("correct", slots=[])], [IGNORE, IGNORE]),
        ([_asked("asr"), _asked("correct", slots=None)], [IGNORE, IGNORE]),
        ([_asked("asr", slots=None), _asked("correct")], [IGNORE, IGNORE]),
        ([_asked("asr", slots=None), _asked("asr"), _asked("correct")], [IGNORE, IGNORE, 1]),
        ([_asked("asr"), _asked("correct", rephrase_of=-1)], [IGNORE, 0]),
        ([_asked("correct"), _asked("correct", rephrase_of=0)], [IGNORE, 1]),
    ],
)
def test_rephrase_truth(annotations: list[dict[str, object]], wanted: list[int], model: Model, encode: Encode) -> None:
    assert model.rephrase.targets(encode([_annotated(*annotations)])).tolist() == wanted


def test_a_rephrase_names_the_turn_and_never_one_before_the_dialogue(
    model: Model, encode: Encode, fixed: type[torch.nn.Module]
) -> None:
    model.rephrase.scorer = fixed([[0, 0, 9.0, 0, 0], [0, 9.0, 0, 0, 0], [0, 0, 9.0, 0, 0], [9.0, 0, 0, 0, 0]])
    (labels,) = model.rephrase.decode(encode([_plain(4)]))
    assert [label.rephrase_of for label in labels] == [None, 0, 0, None]


@torch.no_grad()
def test_which_turn_is_asked_again_may_be_open_where_it_is_sure_that_one_is(
    model: Model, encode: Encode, fixed: type[torch.nn.Module]
) -> None:
    shares = torch.tensor([0.4, 0.25, 0.35, 1e-9, 1e-9]).log().tolist()
    model.rephrase.scorer = fixed([shares] * 4)
    model.rephrase.threshold.fill_(0.5)
    (labels,) = model.rephrase.decode(encode([_plain(4)]))
    assert labels[3] == RephraseLabel(1, abstained=True)
    model.rephrase.decision.fill_(0.7)
    (labels,) = model.rephrase.decode(encode([_plain(4)]))
    assert labels[3] == RephraseLabel(None, abstained=True)


# Slots


def _tagged(model: Model, fixed: type[torch.nn.Module], tags: str) -> None:
    """The tagger says these: one of O, B, I a user token."""
    model.slots.tags = fixed([[9.0 * (tag == each) for each in "OBI"] for tag in tags])


def _slots(model: Model, encoded: Encoded) -> list[SlotsLabel]:
    return model.slots.decode(encoded, model.intent.decode(encoded))


def _accepting(model: Model, accepts: bool) -> None:
    torch.nn.init.zeros_(model.slots.accept[-1].weight)
    model.slots.accept[-1].bias.data = torch.tensor([0.0, 9.0 if accepts else -9.0])


@pytest.mark.parametrize(
    ("tags", "values"),
    [
        ("OOOOBIIII", ["abba x"]),
        ("BIOOBIOOB", ["play", "abba", "x"]),
        ("BIBOOOOOO", ["play"]),
        ("IIIIOOOOO", ["play"]),
        ("OOOOOOOOO", []),
    ],
)
@torch.no_grad()
def test_spans_read_as_the_text_does(
    tags: str, values: list[str], model: Model, encode: Encode, fixed: type[torch.nn.Module]
) -> None:
    text = "play abba x"
    _tagged(model, fixed, tags)
    (label,) = _slots(model, encode([_dialogue(Turn(text=text))]))
    assert [slot.value for slot in label.slots] == values
    assert all(text[slot.start : slot.end] == slot.value for slot in label.slots)
    assert {slot.name for slot in label.slots} <= {"artist"}


@torch.no_grad()
def test_a_value_ends_with_its_turn(model: Model, encode: Encode, fixed: type[torch.nn.Module]) -> None:
    _tagged(model, fixed, "OOB" + "IOI")
    dialogue = _dialogue(*(Turn(asr=[AsrHypothesis(text=text)]) for text in ("a b c", "", "x y z")))
    labels = _slots(model, encode([dialogue]))
    assert [[slot.value for slot in label.slots] for label in labels] == [["c"], [], ["x", "z"]]


def _proposing() -> Dialogue:
    heard = [
        NluHypothesis(slots=[Slot(name="requested", value="phone"), Slot(name="food", value="Thai")], score=0.6),
        NluHypothesis(slots=[Slot(name="food", value="thai")], score=0.3),
    ]
    meant = [NluHypothesis(slots=[Slot(name="area", value="north")])]
    return _dialogue(Turn(text="thai up north", nlu=heard), Turn(text="north", nlu=meant))


def test_accepted_proposals_are_slots_once_each_and_in_place(model: Model, encode: Encode) -> None:
    _accepting(model, True)
    model.slots.tags.bias.data = torch.tensor([100.0, 0.0, 0.0])
    first, second = _slots(model, encode([_proposing()]))
    assert [(slot.name, slot.value, slot.start, slot.end) for slot in first.slots] == [
        ("requested", "phone", None, None),
        ("food", "Thai", 0, 4),
        ("area", "north", 8, 13),
    ]
    assert [slot.value for slot in second.slots] == ["north"]


@pytest.mark.parametrize(
    ("scores", "mass"), [((0.6, 0.2), 0.75), ((math.log(0.6), math.log(0.2)), 0.75), ((None, None), 0.0)]
)
def test_a_proposal_has_the_weight_of_its_hypotheses(scores: tuple[float | None, float | None], mass: float) -> None:
    said_twice = [Slot(name="food", value="thai")] * 2
    first, second = scores
    nlu = [NluHypothesis(slots=said_twice, score=first), NluHypothesis(slots=[], score=second)]
    found = proposed(_dialogue(Turn(text="thai", nlu=nlu)), 0)
    assert found["food", "thai"] == pytest.approx([1.0, 0.0, 0.0, mass])


def test_proposals_that_are_not_accepted_leave_nothing(model: Model, encode: Encode) -> None:
    _accepting(model, False)
    model.slots.tags.bias.data = torch.tensor([100.0, 0.0, 0.0])
    assert [label.slots for label in _slots(model, encode([_proposing()]))] == [[], []]


@torch.no_grad()
def test_a_slot_that_both_sources_find_is_one(model: Model, encode: Encode, fixed: type[torch.nn.Module]) -> None:
    _accepting(model, True)
    _tagged(model, fixed, "OOOOBIII")
    nlu = [NluHypothesis(slots=[Slot(name="artist", value="ABBA")])]
    (label,) = _slots(model, encode([_dialogue(Turn(text="play abba", nlu=nlu))]))
    assert [(slot.value, slot.start, slot.end) for slot in label.slots] == [("ABBA", 5, 9)]


@torch.no_grad()
def test_a_piece_of_a_surer_proposal_is_no_slot_of_its_own(
    model: Model, encode: Encode, fixed: type[torch.nn.Module]
) -> None:
    slots = [
        Slot(name=name, value=value) for name, value in [("title", "the"), ("title", "the long road"), ("by", "the")]
    ]
    turn = Turn(text="play the long road", nlu=[NluHypothesis(slots=slots)])
    model.slots.tags.bias.data = torch.tensor([100.0, 0.0, 0.0])
    model.slots.accept = fixed([[0.0, 2.0], [0.0, 9.0], [0.0, 2.0]])
    (label,) = _slots(model, encode([_dialogue(turn)]))
    assert [(slot.name, slot.value) for slot in label.slots] == [("title", "the long road"), ("by", "the")]


@torch.no_grad()
def test_a_span_is_a_slot_of_the_intents_service(model: Model, fixed: type[torch.nn.Module]) -> None:
    services = (
        Service("music", intents=(Intent("play"),), slots=(SlotType("artist"), SlotType("song"))),
        Service("travel", intents=(Intent("go"),), slots=(SlotType("city"),)),
    )
    encoded = model.encode([_dialogue(Turn(text="abba"))], model.encode_ontology(Ontology(services)))
    model.slots.tags = fixed([[0.0, 9.0, 0.0], *[[0.0, 0.0, 9.0]] * 3])
    found = {
        (intent, doubtful): model.slots.decode(encoded, [IntentLabel(intent, 0.6, doubtful)])[0].slots[0].name
        for intent in ("play", "go")
        for doubtful in (True, False)
    }
    assert found["play", False] in ("artist", "song")
    assert found["go", False] == "city"
    assert found["play", True] == found["go", True]


@torch.no_grad()
@pytest.mark.parametrize(("services", "places"), [(["music"], {"music"}), (["travel"], {"travel"}), (None, None)])
def test_only_services_in_reach_are_meant(
    model: Model, services: list[str] | None, places: set[str] | None, fixed: type[torch.nn.Module]
) -> None:
    texts = ["abba", "rome", "left", "song", "city", "plan"]
    ontology = Ontology(
        tuple(
            Service(name, intents=(Intent(f"{name} now"),), slots=(SlotType(f"{name} of it"),))
            for name in ("music", "travel")
        )
    )
    dialogue = _dialogue(*(Turn(text=text) for text in texts))
    dialogue.services = services
    encoded = model.encode([dialogue], model.encode_ontology(ontology))
    model.slots.tags = fixed([[0.0, 9.0, 0.0], *[[0.0, 0.0, 9.0]] * 3] * len(texts))
    intents = model.intent.decode(encoded)
    slots = model.slots.decode(encoded, [each._replace(abstained=True) for each in intents])
    meant = {str(each.name).split()[0] for each in intents} | {each.slots[0].name.split()[0] for each in slots}
    assert meant == places or (places is None and meant)
    assert all(each.confidence == pytest.approx(1.0) for each in intents) == (services is not None)


@torch.no_grad()
def test_services_in_reach_that_have_no_slots_leave_no_span(model: Model, fixed: type[torch.nn.Module]) -> None:
    services = (Service("jokes", intents=(Intent("tell"),)), Service("bank", slots=(SlotType("payee"),)))
    dialogue = _dialogue(Turn(text="abba"))
    dialogue.services = ["jokes"]
    encoded = model.encode([dialogue], model.encode_ontology(Ontology(services)))
    model.slots.tags = fixed([[0.0, 9.0, 0.0], *[[0.0, 0.0, 9.0]] * 3])
    assert _slots(model, encoded)[0].slots == []


@torch.no_grad()
def test_services_in_reach_that_have_no_intents_have_slots(model: Model, fixed: type[torch.nn.Module]) -> None:
    services = (
        Service("bank", slots=(SlotType("payee"),)),
        Service("travel", intents=(Intent("go"),), slots=(SlotType("city"),)),
    )
    dialogue = _dialogue(Turn(text="abba"))
    dialogue.services = ["bank"]
    encoded = model.encode([dialogue], model.encode_ontology(Ontology(services)))
    model.slots.tags = fixed([[0.0, 9.0, 0.0], *[[0.0, 0.0, 9.0]] * 3])
    assert [each.name for each in model.intent.decode(encoded)] == ["go"]
    assert [slot.name for slot in _slots(model, encoded)[0].slots] == ["payee"]


@torch.no_grad()
def test_a_slot_with_a_closed_list_of_values_has_no_other(model: Model, fixed: type[torch.nn.Module]) -> None:
    def names(*slots: SlotType) -> set[str]:
        ontology = Ontology((Service("travel", intents=(Intent("go"),), slots=slots),))
        dialogue = _dialogue(Turn(text="first"), Turn(text="other"))
        encoded = model.encode([dialogue], model.encode_ontology(ontology))
        model.slots.tags = fixed([[0.0, 9.0, 0.0], *[[0.0, 0.0, 9.0]] * 4] * 2)
        labels = model.slots.decode(encoded, [IntentLabel("go", 0.9, False)] * 2)
        return {(label.slots[0].value, label.slots[0].name) for label in labels}

    closed = SlotType("class", is_categorical=True, possible_values=("First", "Second"))
    assert ("other", "city") in names(closed, SlotType("city"))
    opened = SlotType("city", is_categorical=True, possible_values=("Rome",))
    assert names(closed, opened) >= {("first", "class")}


@torch.no_grad()
def test_a_name_that_services_describe_differently_is_all_of_these(model: Model) -> None:
    def vector(*descriptions: str) -> torch.Tensor:
        services = tuple(Service(each, slots=(SlotType("city", each),)) for each in descriptions)
        return model.encode_ontology(Ontology(services)).slot_vectors[0]

    together = vector("of departure", "of arrival")
    torch.testing.assert_close(together, (vector("of departure") + vector("of arrival")) / 2)


def test_slot_truth_is_begin_and_inside_of_the_annotated_span(model: Model, encode: Encode) -> None:
    slots = [Slot(name="artist", value="abba", start=5, end=9), Slot(name="requested", value="song")]
    turn = Turn(text="play abba", annotation=TurnAnnotation(slots=slots))
    targets = model.slots.targets(encode([_dialogue(turn)])).tolist()
    assert targets == [0, 0, 0, 0, 1, 2, 2, 2]


# Of many turns


def test_many_turns_are_compared_with_the_names_in_parts(
    model: Model, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode([_dialogue(*(Turn(text=f"play {word} jazz") for word in ("some", "no", "my", "old", "cool")))])
    model.slots.tags.bias.data += torch.tensor([-9.0, 9.0, 0.0])  # every token is a value
    with torch.no_grad():
        whole = model.intent.decode(encoded), _slots(model, encoded)
        monkeypatch.setattr("labelers.intent.TURNS", 2)
        monkeypatch.setattr("labelers.slots._SPANS", 2)
        parts = model.intent.decode(encoded), _slots(model, encoded)
    assert [each.name for each in parts[0]] == [each.name for each in whole[0]]
    assert [each.confidence for each in parts[0]] == pytest.approx([each.confidence for each in whole[0]])
    assert len({each.confidence for each in whole[0]}) == 5
    slots = [[(slot.name, slot.value) for slot in each.slots] for each in whole[1]]
    assert [[(slot.name, slot.value) for slot in each.slots] for each in parts[1]] == slots
    assert min(map(len, slots)) > 1


@torch.no_grad()
def test_tokens_proposals_and_turns_before_are_scored_in_parts(
    model: Model, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heard(index: int) -> list[NluHypothesis]:
        return [NluHypothesis(slots=[Slot(name="artist", value=str(index)), Slot(name="song", value="x")])]

    encoded = encode([_dialogue(*(Turn(text="ab" * index, nlu=heard(index)) for index in range(1, 6)))])
    rows: list[int] = []
    for head in (model.slots.tags, model.slots.accept, model.goal_segmentation.scorer.score):
        head.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))

    def scored() -> list[torch.Tensor]:
        found = [SlotsLabel([], False)] * 5
        pairs = model.goal_segmentation, model.rephrase
        return [each.logits(encoded) for each in (model.slots, *pairs)] + [model.slots.of_hypothesis(encoded, found)]

    whole = scored()
    assert sorted(rows) == [5, 14, 30]
    rows.clear()
    for part in ("slots.TURNS", "pairs.TURNS", "slots._PROPOSALS"):
        monkeypatch.setattr(f"labelers.{part}", 2)
    for one, other in zip(scored(), whole, strict=True):
        torch.testing.assert_close(one, other)
    pairs, proposals, tokens = [2, 2, 1], [2] * 7, [2 + 4, 6 + 8, 10]
    assert sorted(rows) == sorted([*pairs, *proposals, *tokens])
