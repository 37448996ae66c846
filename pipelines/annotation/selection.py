"""Which turns need a person most, and why.

- *uncertain*: the model abstains from a label, or the two most probable failure points are close.
- *disagreeing*: the label says one thing and the user's feedback another.
- *new*: a request unlike the others of the output, whose intent the model doubts.
- *random*: drawn from all turns alike, for an honest measure of the model: the others are the hard ones.

Each strategy ranks its own turns and is asked for its share of the number; what one cannot fill goes to the others.
A request that reads nearly like one that is chosen already, and has the same failure point, is passed over, but for
random turns, which are drawn first. The same labels give the same turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
import numpy as np
from rapidfuzz import fuzz, process
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

from pipelines.annotation.tasks import Strategy

SHARES: Mapping[Strategy, float] = {
    Strategy.UNCERTAIN: 4,
    Strategy.DISAGREEING: 3,
    Strategy.NEW: 2,
    Strategy.RANDOM: 1,
}
"""The default mix."""
CLOSE = 0.3
"""Two failure points are close if their probabilities differ by less."""
SAME = 90.0
"""Per cent of likeness from which two requests count as one sentence."""
FAR = 0.5
"""A request is unlike the others if the most similar one has less than this cosine similarity."""
REFERENCE_TEXTS, NEW_TEXTS = 20_000, 2_000
"""Distinct requests that a request is compared with; requests that are compared, the most doubted intents first."""
RANKED = 20
"""Turns that a strategy ranks, for each that it is asked for: the rest are copies, or other strategies' turns."""


class Turn(NamedTuple):
    """A turn that a strategy proposes."""

    dataset: str
    dialogue_id: str
    turn_index: int
    text: str
    failure_point: str
    why: str


class Chosen(NamedTuple):
    """A turn that is chosen, and by which strategy."""

    turn: Turn
    strategy: Strategy


class Choice(NamedTuple):
    """What came of choosing."""

    turns: list[Chosen]
    """each strategy's in its order, the strategies by turns"""
    asked: dict[Strategy, int]
    """turns that each strategy was asked for"""


def choose(connection: duckdb.DuckDBPyConnection, number: int, shares: Mapping[Strategy, float]) -> Choice:
    """Up to `number` turns of the tables of `pipelines.labelled`, in this mix; only turns whose text is known."""
    asked = quotas(number, shares)
    ranked = {strategy: iter(_RANKINGS[strategy](connection, RANKED * number)) for strategy in asked}
    taken: set[tuple[str, str, int]] = set()
    texts: dict[str, list[str]] = {}
    chosen: dict[Strategy, list[Turn]] = {strategy: [] for strategy in asked}

    def fill(strategy: Strategy, count: int) -> None:
        while count and (turn := next(ranked[strategy], None)) is not None:
            if turn[:3] in taken or (strategy is not Strategy.RANDOM and _is_copy(turn, texts)):
                continue
            taken.add(turn[:3])
            texts.setdefault(turn.failure_point, []).append(_folded(turn.text))
            chosen[strategy].append(turn)
            count -= 1

    # Random turns first: what the others chose must not bend them.
    order = sorted(asked, key=lambda each: each is not Strategy.RANDOM)
    for strategy in order:
        fill(strategy, asked[strategy])
    for strategy in reversed(order):
        fill(strategy, number - len(taken))
    return Choice(list(_by_turns(chosen)), asked)


def quotas(number: int, shares: Mapping[Strategy, float]) -> dict[Strategy, int]:
    """How many turns each strategy is asked for: together `number`, the largest remainders rounded up."""
    total = sum(shares.values())
    exact = {strategy: number * share / total for strategy, share in shares.items() if share}
    counts = {strategy: int(each) for strategy, each in exact.items()}
    for strategy in sorted(exact, key=lambda each: counts[each] - exact[each])[: number - sum(counts.values())]:
        counts[strategy] += 1
    return counts


def _turn(place: Sequence[Any], why: str) -> Turn:
    return Turn._make([*place, why])


def _by_turns(chosen: Mapping[Strategy, Sequence[Turn]]) -> Iterator[Chosen]:
    for rank in range(max(map(len, chosen.values()), default=0)):
        for strategy, turns in chosen.items():
            if rank < len(turns):
                yield Chosen(turns[rank], strategy)


def _is_copy(turn: Turn, texts: Mapping[str, Sequence[str]]) -> bool:
    like = texts.get(turn.failure_point, ())
    return process.extractOne(_folded(turn.text), like, scorer=fuzz.ratio, score_cutoff=SAME) is not None


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


# The strategies

_PLACE = "dataset, dialogue_id, turn_index, text, failure_point"
_UNCERTAIN = f"""
WITH ranked AS (
  SELECT {_PLACE}, abstained,
    list_reverse_sort([
      {{'p': p.correct, 'point': 'correct'}}, {{'p': p.wake, 'point': 'wake'}}, {{'p': p.asr, 'point': 'asr'}},
      {{'p': p.nlu, 'point': 'nlu'}}, {{'p': p.er, 'point': 'er'}}, {{'p': p.result, 'point': 'result'}}
    ]) AS best
  FROM (SELECT *, failure_point_probabilities AS p FROM turns WHERE text IS NOT NULL)
)
SELECT {_PLACE}, abstained, best[1], best[2] FROM ranked
WHERE len(abstained) > 0 OR best[1].p - best[2].p < $close
ORDER BY best[1].p - best[2].p - len(abstained) / 6, dataset, dialogue_id, turn_index LIMIT $limit"""


def _uncertain(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterator[Turn]:
    for *place, abstained, best, second in connection.execute(_UNCERTAIN, {"close": CLOSE, "limit": limit}).fetchall():
        why = f"failure point: {best['point']} {best['p']:.2f} or {second['point']} {second['p']:.2f}"
        if abstained:
            why += f"; the model abstains from {', '.join(name.replace('_', ' ') for name in abstained)}"
        yield _turn(place, f"Uncertain: {why}.")


# What a request says is about the turn before; a button, a barge-in about its own; a survey about the dialogue, of
# which the most doubtful turn is asked. Users also speak over good responses: that counts half.
_DISAGREEING = f"""
WITH beside AS (
  SELECT *,
    coalesce(lead(feedback_signals) OVER following, []) AS next_signals,
    lead(failure_point) OVER following = 'correct' AS next_correct,
    last_value(feedback_signals) OVER whole AS last_signals,
    row_number() OVER (PARTITION BY dataset, dialogue_id ORDER BY defect_probability DESC, turn_index) = 1 AS doubtful
  FROM turns
  WINDOW following AS (PARTITION BY dataset, dialogue_id ORDER BY turn_index),
    whole AS (following ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
), said AS (
  SELECT {", ".join(f"beside.{name.strip()}" for name in _PLACE.split(","))}, failure_point_confidence,
    list_filter(CASE failure_point WHEN 'correct' THEN [
      CASE WHEN again.turn_index IS NOT NULL THEN 'turn ' || again.turn_index || ' asks for the same again' END,
      CASE WHEN list_contains(next_signals, 'repeat') THEN 'the user says the same again' END,
      CASE WHEN list_contains(next_signals, 'correction') THEN 'the user then corrects it' END,
      CASE WHEN list_contains(next_signals, 'give_up') AND next_correct THEN 'the user then gives up' END,
      CASE WHEN list_contains(feedback_signals, 'negative') THEN 'the user rated it as bad' END,
      CASE WHEN list_contains(feedback_signals, 'barge_in') THEN 'the user spoke over the response' END,
      CASE WHEN doubtful AND dialogues.success AND list_contains(last_signals, 'survey_failure')
        THEN 'the user said that the dialogue failed' END
    ] ELSE [
      CASE WHEN list_contains(feedback_signals, 'positive') THEN 'the user rated it as good' END,
      CASE WHEN doubtful AND list_contains(last_signals, 'survey_success')
        THEN 'the user said that the dialogue succeeded' END
    ] END, lambda reason: reason IS NOT NULL) AS reasons
  FROM beside
  JOIN dialogues USING (dataset, dialogue_id)
  LEFT JOIN (
    SELECT dataset, dialogue_id, rephrase_of, min(turn_index) AS turn_index FROM turns
    WHERE rephrase_of IS NOT NULL AND NOT list_contains(abstained, 'rephrase') GROUP BY ALL
  ) AS again ON again.dataset = beside.dataset AND again.dialogue_id = beside.dialogue_id
    AND again.rephrase_of = beside.turn_index
  WHERE beside.text IS NOT NULL
)
SELECT {_PLACE}, failure_point_confidence, reasons FROM said WHERE len(reasons) > 0
ORDER BY len(reasons) - list_contains(reasons, 'the user spoke over the response')::INT / 2 DESC,
  failure_point_confidence DESC, dataset, dialogue_id, turn_index LIMIT $limit"""


def _disagreeing(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterator[Turn]:
    for *place, sure, reasons in connection.execute(_DISAGREEING, {"limit": limit}).fetchall():
        point = place[-1]
        yield _turn(place, f"Disagreeing: labelled {point} ({sure:.2f}), yet {', and '.join(reasons)}.")


_TEXTS = """
WITH texts AS (
  SELECT lower(trim(text)) AS said, min(coalesce(intent_confidence, 0)) AS intent_confidence,
    arg_min((dataset, dialogue_id, turn_index, text, failure_point), (coalesce(intent_confidence, 0), dataset,
      dialogue_id, turn_index)) AS turn
  FROM turns WHERE regexp_matches(text, '\\w\\W+\\w') GROUP BY said
)"""
_REFERENCE = f"{_TEXTS} SELECT said FROM texts ORDER BY hash(said), said LIMIT {REFERENCE_TEXTS}"
_DOUBTED = f"{_TEXTS} SELECT said, intent_confidence, turn FROM texts ORDER BY 2, 1 LIMIT {NEW_TEXTS}"


def _new(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterator[Turn]:
    reference = [said for (said,) in connection.execute(_REFERENCE).fetchall()]
    doubted = connection.execute(_DOUBTED).fetchall()
    if len(reference) < 3:
        return  # nothing to be unlike
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=np.float32)
    neighbours = NearestNeighbors(n_neighbors=2, metric="cosine").fit(letters.fit_transform(reference))
    distances, nearest = neighbours.kneighbors(letters.transform([said for said, _, _ in doubted]))
    found: list[tuple[float, Turn]] = []
    for (said, sure, place), far, near in zip(doubted, distances.tolist(), nearest.tolist(), strict=True):
        # The nearest is the request itself, where it is one of the reference.
        rank = int(reference[near[0]] == said)
        if 1 - far[rank] < FAR:
            why = f"nothing said in this output is like it (the nearest is “{reference[near[rank]]}”)"
            found.append((far[rank] * (1 - sure), _turn(place, f"New: {why}; intent confidence {sure:.2f}.")))
    found.sort(key=lambda each: (-each[0], each[1]))
    yield from (turn for _, turn in found[:limit])


_RANDOM = f"""
SELECT {_PLACE} FROM turns WHERE text IS NOT NULL
ORDER BY hash(dataset || '/' || dialogue_id || '/' || turn_index), dialogue_id, turn_index LIMIT $limit"""


def _random(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterator[Turn]:
    for place in connection.execute(_RANDOM, {"limit": limit}).fetchall():
        yield _turn(place, "Random: drawn from all turns alike, to measure the model by.")


_Ranking = Callable[[duckdb.DuckDBPyConnection, int], Iterator[Turn]]
_RANKINGS: dict[Strategy, _Ranking] = {
    Strategy.UNCERTAIN: _uncertain,
    Strategy.DISAGREEING: _disagreeing,
    Strategy.NEW: _new,
    Strategy.RANDOM: _random,
}
