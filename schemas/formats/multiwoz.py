"""`multiwoz`: MultiWOZ 2.1, dialogues by their id.

Eric et al., *MultiWOZ 2.1: A Consolidated Multi-Domain Dialogue Dataset with State Corrections and State Tracking
Baselines* (LREC 2020). A record is an object of any number of dialogues, each under its id:
`{"SNG0073.json": {"log": [...]}, ...}`. So a file of the data set is a record as it is, while it is not larger than a
record may be (the whole `data.json` is, and a record with one bad dialogue is rejected whole). Cut into a line a
dialogue it has neither trouble: `jq -c 'to_entries[] | {(.key): .value}' data.json > data.jsonl`.

A turn is an utterance of the user, which are the log's first, third and so on, with the utterance of the system that
follows it. The `metadata` there is the state after both: what the user wants, by domain and slot (`semi`, and `book`
without what was `booked`). Empty values, `none` and `not mentioned` count as no value.

- A turn's domain is the one in whose state a value is new or another than after the turn before; of several, the one
  that had no value yet, else the first. Where the state stays as it is, the domain is the one that the user's acts
  name (`Taxi-Inform` in answer to "I also need a taxi"; the state follows a turn later), if they name just one, else
  that of the turn before. What comes before the first such turn belongs to its domain.
- A goal is a domain; going back to a domain goes back to its goal, so goals interleave.
- The data set has no intents and does not say whether the user reached anything: both are null.
- Slots are the new values that the turn says, with their span. The others are left out: people also wrote down what
  the user accepted or referred to, not always on the right turn. So are `yes` and `no`, which are words of the
  annotation ("Yes, and a car park": the `yes` of `parking` is not the one that was said).

The system's acts are left out: `response.action` and `response.status` are always null. They name the domain, and
people wrote them down who knew it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from schemas.formats.base import DialogueFormat, RawRecord
from schemas.log import (
    Dialogue,
    DialogueAnnotation,
    GoalAnnotation,
    Response,
    Slot,
    Turn,
    TurnAnnotation,
    decode,
    validate,
)
from schemas.rejects import RecordError, RejectReason, Stage

_NO_VALUE = frozenset({"", "none", "not mentioned"})
_NOT_SAID = frozenset({"yes", "no"})
_NO_DOMAIN = frozenset({"general", "booking"})
"""What stands in the place of a domain in the acts that are of none, or of any."""

_State = dict[tuple[str, str], str]
"""Values by domain and slot."""


class _DomainState(Struct):
    semi: dict[str, Any] = {}
    book: dict[str, Any] = {}


class _Utterance(Struct):
    text: str
    metadata: dict[str, _DomainState] = {}
    dialog_act: dict[str, Any] | str = {}
    """A text where there is no annotation."""


class _Dialogue(Struct):
    log: list[_Utterance]


class MultiwozFormat(DialogueFormat):
    """MultiWOZ 2.1, dialogues by their id."""

    name = "multiwoz"
    source = "https://github.com/budzianowski/multiwoz"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        found = []
        for number, (name, source) in enumerate(decode(record, dict[str, Any]).items(), start=1):
            try:
                found.append(validate(_dialogue(name, decode(source, _Dialogue))))
            except RecordError as error:
                raise RecordError(error.stage, error.reason, f"dialogue {number} of it: {error.message}") from None
        if not found:
            raise RecordError(Stage.VALIDATE, RejectReason.MISSING_FIELD, "the record has no dialogue")
        return found


def _dialogue(name: str, source: _Dialogue) -> Dialogue:
    said, answers = source.log[::2], source.log[1::2]
    turns = [Turn(text=each.text) for each in said]
    for turn, answer in zip(turns, answers, strict=False):
        turn.response = Response(text=answer.text or None)
    dialogue = Dialogue(dialogue_id=name, turns=turns, locale="en")
    if any(each.metadata for each in answers):
        dialogue.annotation = _annotate(turns, said, answers)
    return dialogue


def _annotate(turns: list[Turn], said: list[_Utterance], answers: list[_Utterance]) -> DialogueAnnotation:
    """Writes into the turns what the states and acts say of them."""
    states = [_state(each) for each in answers]
    states += states[-1:] * (len(said) - len(answers))
    domains: list[str | None] = []
    before: _State = {}
    for turn, request, state in zip(turns, said, states, strict=True):
        new = {name: value for name, value in state.items() if before.get(name) != value}
        domains.append(_domain(new, before, request) or (domains[-1] if domains else None))
        slots = [Slot.said_in(request.text, slot, value) for (_, slot), value in new.items() if value not in _NOT_SAID]
        turn.annotation = TurnAnnotation(slots=[slot for slot in slots if slot.start is not None])
        before = state
    first = next((domain for domain in domains if domain), None)
    goals: dict[str | None, GoalAnnotation] = {}
    for turn, domain in zip(turns, domains, strict=True):
        goal = goals.setdefault(domain or first, GoalAnnotation(goal_id=str(len(goals))))
        assert turn.annotation is not None
        turn.annotation.domain, turn.annotation.goal_id = domain or first, goal.goal_id
    return DialogueAnnotation(goals=list(goals.values()))


def _state(answer: _Utterance) -> _State:
    return {
        (domain, slot): value
        for domain, state in answer.metadata.items()
        for slot, value in (*state.semi.items(), *state.book.items())
        if isinstance(value, str) and value not in _NO_VALUE
    }


def _domain(new: _State, before: _State, request: _Utterance) -> str | None:
    """The domain that a turn turns to, if any."""
    changed = [domain for domain, _ in new]
    opened = [domain for domain in changed if domain not in {each for each, _ in before}]
    if changed:
        return (opened or changed)[0]
    acts = request.dialog_act if isinstance(request.dialog_act, dict) else {}
    named = {act.partition("-")[0].lower() for act in acts} - _NO_DOMAIN
    return named.pop() if len(named) == 1 else None
