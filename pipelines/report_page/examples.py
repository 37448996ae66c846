"""The failing dialogues that the page holds: which, and what it shows of each.

Not all fit into a page. The failed turns are put into groups by failure point and intent. In each group the
failure points that the model does not abstain from come first, then the most confident; a group has examples in
proportion to the square root of its size, so that the frequent does not crowd out the rare.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
import msgspec
from msgspec import Struct

from schemas.labels import Label, Signal
from schemas.log import FailurePoint

TEXT_LIMIT = 400
"""Characters of a text that are shown."""
HYPOTHESES = 5
"""Entries of an n-best list that are shown."""
TURNS = 40
"""Turns of a dialogue that are shown: those around the turn that it is an example of."""
BYTES = 8 << 20
"""JSON of all examples at most; what would be over is left out."""

_BATCH = 100

_CHOICE = f"""\
WITH failed AS (
  SELECT dataset, dialogue_id, turn_index, failure_point_confidence AS confidence,
         row_number() OVER (grouped ORDER BY list_contains(abstained, '{Label.FAILURE_POINT}'),
                            failure_point_confidence DESC, dataset, dialogue_id, turn_index)
           / sqrt(count(*) OVER (grouped)) AS place
  FROM turns WHERE failure_point <> 'correct' WINDOW grouped AS (PARTITION BY failure_point, intent))
SELECT dataset, dialogue_id, arg_min(turn_index, (place, turn_index)) AS turn_index
FROM failed GROUP BY dataset, dialogue_id ORDER BY min(place), max(confidence) DESC, dataset, dialogue_id LIMIT ?"""

_COLUMNS = (
    "turn_index, goal_id, intent, intent_confidence, slots, failure_point, failure_point_probabilities, rephrase_of, "
    "feedback_signals, abstained, text, response, action, status, domain, asr, nlu, started_at, locale, device"
)


class Example(NamedTuple):
    """A failed turn that a dialogue is shown for."""

    dataset: str
    dialogue_id: str
    turn_index: int


class Effect(Struct, frozen=True):
    """Something that moved the model's answer, and how far."""

    what: str
    defect: float
    """What it added to P(defect)."""
    point: float
    """What it added to the probability of the failure point."""


class ShownHypothesis(Struct, omit_defaults=True):
    """One entry of an n-best list."""

    text: str
    score: float | None = None


class ShownTurn(Struct, omit_defaults=True, kw_only=True):
    """A turn of an example. Texts are cut at `TEXT_LIMIT`."""

    index: int
    text: str | None = None
    response: str | None = None
    action: str | None = None
    status: str | None = None
    domain: str | None = None
    asr: list[ShownHypothesis] = []
    nlu: list[ShownHypothesis] = []
    more_asr: int = 0
    """Hypotheses that are not shown."""
    more_nlu: int = 0
    intent: str | None = None
    intent_confidence: float | None = None
    slots: list[str] = []
    point: str
    probabilities: list[float]
    """In the order of `FailurePoint`."""
    goal: int
    """From 0, in the order in which the goals start."""
    abstained: list[str] = []
    rephrase_of: int | None = None
    then: list[str] = []
    """What the user did next, in words; of failed turns."""
    why: list[Effect] = []


class ShownGoal(Struct, omit_defaults=True):
    """A goal of an example."""

    intent: str | None
    success: bool
    confidence: float
    point: str


class ShownDialogue(Struct, omit_defaults=True, kw_only=True):
    """One example."""

    id: str
    turn: int
    """The turn that it is an example of."""
    time: str | None = None
    locale: str | None = None
    device: str | None = None
    turns: list[ShownTurn]
    goals: list[ShownGoal]
    more_turns: int = 0
    """Turns that are not shown."""


class Examples(NamedTuple):
    """What is shown, and out of how much."""

    dialogues: list[ShownDialogue]
    failed_dialogues: int
    """Dialogues of the output with a failed turn."""


def choose(connection: duckdb.DuckDBPyConnection, most: int) -> list[Example]:
    """The failed turns to show, one a dialogue, the first ones first."""
    return [Example(*row) for row in connection.execute(_CHOICE, [most]).fetchall()]


def show(
    connection: duckdb.DuckDBPyConnection,
    chosen: Sequence[Example],
    why: Mapping[Example, Sequence[Effect]],
) -> Examples:
    """The examples as the page has them, in their order; `why` says what moved the answer where it is known."""
    [(failed,)] = connection.execute(
        "SELECT count(DISTINCT (dataset, dialogue_id)) FROM turns WHERE failure_point <> 'correct'"
    ).fetchall()
    shown: list[ShownDialogue] = []
    room = BYTES
    for start in range(0, len(chosen), _BATCH):
        batch = chosen[start : start + _BATCH]
        for dialogue in _dialogues(connection, batch, why):
            room -= len(msgspec.json.encode(dialogue))
            if room < 0:
                return Examples(shown, failed)
            shown.append(dialogue)
    return Examples(shown, failed)


def _dialogues(
    connection: duckdb.DuckDBPyConnection, batch: Sequence[Example], why: Mapping[Example, Sequence[Effect]]
) -> Iterator[ShownDialogue]:
    """The examples of a batch, in its order."""
    wanted = [{"dataset": each.dataset, "dialogue_id": each.dialogue_id} for each in batch]
    turns: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in _rows(connection, f"{_COLUMNS} FROM turns", "turn_index", wanted):
        turns.setdefault((row["dataset"], row["dialogue_id"]), []).append(row)
    goals: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    columns = "goal_id, intent, success, success_confidence, failure_point FROM goals"
    for row in _rows(connection, columns, "turn_indexes", wanted):
        goals.setdefault((row["dataset"], row["dialogue_id"]), {})[row["goal_id"]] = row
    for example in batch:
        key = (example.dataset, example.dialogue_id)
        yield _dialogue(example, turns[key], goals[key], why.get(example, ()))


def _rows(
    connection: duckdb.DuckDBPyConnection, what: str, order: str, wanted: Sequence[Mapping[str, str]]
) -> Iterator[dict[str, Any]]:
    columns, _, table = what.rpartition(" FROM ")
    answer = connection.execute(
        f"SELECT dataset, dialogue_id, {columns} FROM {table} "
        "SEMI JOIN (SELECT unnest($wanted, recursive := true)) USING (dataset, dialogue_id) "
        f"ORDER BY dataset, dialogue_id, {order}",
        {"wanted": wanted},
    )
    names = [column[0] for column in answer.description or ()]
    for values in answer.fetchall():
        yield dict(zip(names, values, strict=True))


def _dialogue(
    example: Example, rows: list[dict[str, Any]], goals: Mapping[str, dict[str, Any]], why: Sequence[Effect]
) -> ShownDialogue:
    first = max(0, min(example.turn_index - TURNS // 2, len(rows) - TURNS))
    kept = rows[first : first + TURNS]
    numbers = {goal: number for number, goal in enumerate(goals)}
    return ShownDialogue(
        id=cut(example.dialogue_id),
        turn=example.turn_index,
        time=_time(kept[0]["started_at"]),
        locale=kept[0]["locale"],
        device=kept[0]["device"],
        turns=[_turn(row, rows, numbers, why if row["turn_index"] == example.turn_index else ()) for row in kept],
        goals=[
            ShownGoal(goal["intent"], goal["success"], round(goal["success_confidence"], 3), goal["failure_point"])
            for goal in goals.values()
        ],
        more_turns=len(rows) - len(kept),
    )


def _turn(
    row: dict[str, Any], rows: list[dict[str, Any]], goals: Mapping[str, int], why: Sequence[Effect]
) -> ShownTurn:
    asr, nlu = row["asr"] or [], row["nlu"] or []
    confidence = row["intent_confidence"]
    return ShownTurn(
        index=row["turn_index"],
        text=cut(row["text"]),
        response=cut(row["response"]),
        action=cut(row["action"]),
        status=cut(row["status"]),
        domain=cut(row["domain"]),
        asr=[ShownHypothesis(cut(each["text"]), each["score"]) for each in asr[:HYPOTHESES]],
        nlu=[ShownHypothesis(_understanding(each), each["score"]) for each in nlu[:HYPOTHESES]],
        more_asr=max(0, len(asr) - HYPOTHESES),
        more_nlu=max(0, len(nlu) - HYPOTHESES),
        intent=row["intent"],
        intent_confidence=None if confidence is None else round(confidence, 3),
        slots=[f"{cut(slot['name'])} = {cut(slot['value'])} ({slot['confidence']:.2f})" for slot in row["slots"]],
        point=row["failure_point"],
        probabilities=[round(row["failure_point_probabilities"][point], 3) for point in FailurePoint],
        goal=goals[row["goal_id"]],
        abstained=row["abstained"],
        rephrase_of=row["rephrase_of"],
        then=what_came_next(rows, row["turn_index"]) if row["failure_point"] != FailurePoint.CORRECT else [],
        why=list(why),
    )


_OWN = {
    Signal.BARGE_IN: "The user spoke over the response.",
    Signal.NEGATIVE: "The user gave negative feedback on the response.",
    Signal.POSITIVE: "The user gave positive feedback on the response.",
}
_NEXT = {
    Signal.REPEAT: "In turn {next} the user said (nearly) the same again.",
    Signal.CORRECTION: "In turn {next} the user used words of correction.",
    Signal.GIVE_UP: "In turn {next} the user gave up.",
}
_LAST = {
    Signal.GIVE_UP: "The dialogue ends here: the user gave up.",
    Signal.SURVEY_FAILURE: "Asked afterwards, the user said that it had failed.",
    Signal.SURVEY_SUCCESS: "Asked afterwards, the user said that it had worked.",
}


def what_came_next(rows: Sequence[Mapping[str, Any]], index: int) -> list[str]:
    """What the user did after a turn's response, each as a sentence, by the signals in a dialogue's rows of `turns`."""
    own = rows[index]["feedback_signals"]
    said = [sentence for signal, sentence in _OWN.items() if signal in own]
    said += [
        f"In turn {row['turn_index']} the user asked for it again in other words."
        for row in rows[index + 1 :]
        if row["rephrase_of"] == index
    ]
    if index + 1 < len(rows):
        signals = rows[index + 1]["feedback_signals"]
        said += [sentence.format(next=index + 1) for signal, sentence in _NEXT.items() if signal in signals]
        return said or ["The user went on without a sign of trouble."]
    return said + ([sentence for signal, sentence in _LAST.items() if signal in own] or ["The dialogue ends here."])


def cut(text: Any) -> Any:
    """The text, or what `TEXT_LIMIT` leaves of it, with a word on what is left out."""
    if text is None or len(text) <= TEXT_LIMIT:
        return text
    return f"{text[:TEXT_LIMIT]}… (cut: {len(text):,} characters)"


def _understanding(hypothesis: Mapping[str, Any]) -> str:
    name = " ".join(cut(hypothesis[each]) for each in ("domain", "intent") if hypothesis[each]) or "nothing"
    slots = ", ".join(f"{slot['name']} = {slot['value']}" for slot in hypothesis["slots"] or [])
    return str(cut(f"{name} ({slots})" if slots else name))


def _time(time: dt.datetime | None) -> str | None:
    return None if time is None else f"{time.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
