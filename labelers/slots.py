"""Slots: the values that the user meant, from two sources.

- Spans of the request: each token begins a value, continues one or is outside (BIO; Ramshaw and Marcus 1995);
  the span's vector is then compared with the names of the ontology's slots. The slot is of a service that could be
  reached in the dialogue and, unless the turn's intent is doubtful, has this intent; a slot with a closed list of
  values has no other value.
- What the assistant's own understanding proposed, here or one turn later, in any hypothesis: each
  (slot, value) is accepted or not. This finds values that are not words of the request (`requested = phone`).

Where both find the same slot with the same value, or in the same place, it is one slot: the proposed one. Of
proposals of one slot, of which one is a piece of the other (`the`, `the long road`), the surer is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.devices import placed
from encoders.hypotheses import posterior
from encoders.packing import ranges
from labelers.base import IGNORE, TURNS, Encoded, EncodedOntology, Labeler, LabelerConfig, Reachable, mlp
from labelers.intent import IntentLabel
from schemas.labels import Label, SlotLabel
from schemas.log import Dialogue, Slot, Turn

OUTSIDE, BEGIN, INSIDE = range(3)
_SOURCES = 4
"""What is known of a proposal: in the top hypothesis, in a lower one, in the next turn's; posterior mass."""
_LEAST = 1e-6
"""Probability that a slot is right, and that it is not, at least: the odds of what is certain are not finite."""
_UNLIKELY = 1e-5
"""Probability that a span is a slot of a service without the turn's intent, or one of which it is no value."""
_SPANS = 4_096
"""Spans that are compared with all names at a time: all of a dialogue of thousands of turns would be gigabytes."""
_PROPOSALS = 65_536
"""Proposals that are judged at a time, for the same reason."""


class SlotsLabel(NamedTuple):
    """The decision for one turn."""

    slots: list[SlotLabel]
    abstained: bool


class _Proposals(NamedTuple):
    """P (slot, value) proposals of all turns."""

    turns: list[int]
    keys: list[tuple[str, str]]
    sources: list[list[float]]


class _Span(NamedTuple):
    """User tokens start … end - 1 of a turn."""

    turn: int
    start: int
    end: int


class SlotLabeler(Labeler):
    """Spans: (K, E) and (N, D) → (K, 3). Proposals: (P, 2). Names: one of S a span.

    Temperature and threshold are of the slots that are found, whatever their source: of the probability that a slot is
    one, with this name and value.
    """

    label = Label.SLOTS

    def __init__(self, config: LabelerConfig) -> None:
        super().__init__()
        self.token = nn.Linear(config.token_width, config.width)
        self.state = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.tags = nn.Linear(config.width, 3)
        self.span = nn.Linear(config.token_width + config.width, config.token_width)
        self.name = nn.Linear(config.token_width, config.token_width)
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.accept = mlp(2 * config.width + _SOURCES, config.width, 2, config.dropout)
        self.proposal = nn.Linear(config.token_width, config.width)

    def logits(self, encoded: Encoded) -> Tensor:
        # What a token is depends on what was asked before, which the turn's state knows.
        states = self.state(encoded.states)
        parts = []
        for first in range(0, len(states), TURNS):
            starts = encoded.user_starts[first : first + TURNS + 1]
            counts = placed(np.diff(starts), states.device)
            asked = states[first : first + TURNS].repeat_interleave(counts, dim=0)
            tokens = encoded.user_tokens[starts[0] : starts[-1]].to(self.token.weight.dtype)
            parts.append(self.tags(self.dropout(functional.gelu(self.token(tokens) + asked))))
        return torch.cat(parts)

    def targets(self, encoded: Encoded) -> Tensor:
        targets = torch.full((len(encoded.user_tokens),), IGNORE)
        for turn, offsets, start in zip(encoded.turns, encoded.user_offsets, encoded.user_starts[:-1], strict=True):
            if turn.annotation is None or turn.annotation.slots is None:
                continue
            of_turn = targets[start : start + len(offsets)]
            of_turn[:] = OUTSIDE
            for slot in turn.annotation.slots:
                tokens = _tokens_of(slot, offsets)
                if tokens:
                    of_turn[tokens] = INSIDE
                    of_turn[tokens[0]] = BEGIN
        return targets.to(encoded.states.device)

    def loss(self, encoded: Encoded) -> Tensor:
        return super().loss(encoded) + self._name_loss(encoded) + self._proposal_loss(encoded)

    def graded(self, encoded: Encoded, found: Sequence[SlotsLabel]) -> tuple[list[float], list[bool]]:
        """Of the slots found in turns of which the slots are annotated: how sure each is, and whether it is right."""
        confidence, right = [], []
        for turn, label in zip(encoded.turns, found, strict=True):
            if turn.annotation is not None and turn.annotation.slots is not None:
                meant = _meant(turn.annotation.slots)
                confidence += [slot.confidence for slot in label.slots]
                right += [(slot.name, slot.value.lower()) in meant for slot in label.slots]
        return confidence, right

    def decode(self, encoded: Encoded, intents: Sequence[IntentLabel]) -> list[SlotsLabel]:
        """One decision a turn, given the turns' intents."""
        found = self._accepted(encoded)
        for row, slots in enumerate(self._spans(encoded, intents)):
            known = list(found[row])
            found[row] += [slot for slot in slots if not any(_same(slot, each) for each in known)]
        threshold = float(self.threshold)
        return [SlotsLabel(slots, any(slot.confidence < threshold for slot in slots)) for slots in found]

    def of_hypothesis(self, encoded: Encoded, found: Sequence[SlotsLabel]) -> Tensor:
        """(N,) probability that the slots of a turn's first NLU hypothesis are meant, and the surest of those that were
        `found` beside them is not. Where there is no hypothesis, it has no slots."""
        given = []
        for turn, label in zip(encoded.turns, found, strict=True):
            understood = _meant(turn.nlu[0].slots if turn.nlu else [])
            others = [slot.confidence for slot in label.slots if (slot.name, slot.value.lower()) not in understood]
            given.append(1.0 - max(others, default=0.0))
        for row, _, sources, sure in self._judged(encoded):
            if sources[0]:
                given[row] *= sure
        return torch.tensor(given, device=encoded.states.device)

    # Spans

    def _spans(self, encoded: Encoded, intents: Sequence[IntentLabel]) -> list[list[SlotLabel]]:
        slots: list[list[SlotLabel]] = [[] for _ in encoded.user_offsets]
        if not encoded.ontology.slots:
            return slots
        confidence, tags = torch.softmax(self.logits(encoded).float(), dim=-1).max(dim=-1)
        reachable = encoded.reachable
        spans = [span for span in _tagged(tags.cpu().numpy(), encoded.user_starts) if reachable[span.turn].slots]
        if not spans:
            return slots
        sures: list[float] = []
        names: list[int] = []
        turns = encoded.turns
        places = [_place(turns[each.turn], encoded.user_offsets[each.turn], each.start, each.end) for each in spans]
        for index in range(0, len(spans), _SPANS):
            part = spans[index : index + _SPANS]
            values = [
                (turns[each.turn].text or "")[first:last]
                for each, (first, last) in zip(part, places[index : index + _SPANS], strict=True)
            ]
            rows = [each.turn for each in part]
            allowed = _allowed(
                encoded.ontology, [reachable[row] for row in rows], [intents[row] for row in rows], values
            )
            decided = torch.softmax(self._name_logits(encoded, part) + allowed, dim=-1).max(dim=-1)
            sures += decided.values.tolist()
            names += decided.indices.tolist()
        tokens, begins = _tokens(encoded, spans)
        lowest = np.minimum.reduceat(confidence.cpu().numpy()[tokens], begins)
        together = placed(np.array(sures, dtype=np.float32) * lowest, confidence.device)
        sures = self.probabilities(scores(together))[:, 1].tolist()
        for (row, *_), (first, last), sure, name in zip(spans, places, sures, names, strict=True):
            before = slots[row][-1].end if slots[row] else None
            if before is not None and first < before:
                continue  # another piece of a word that is a value already
            slots[row].append(
                SlotLabel(
                    name=encoded.ontology.slots[name],
                    value=(turns[row].text or "")[first:last],
                    start=first,
                    end=last,
                    confidence=sure,
                )
            )
        return slots

    def _name_logits(self, encoded: Encoded, spans: Sequence[_Span]) -> Tensor:
        """(spans, S)."""
        dtype = self.span.weight.dtype
        rows = torch.tensor([each.turn for each in spans], device=encoded.states.device)
        tokens, begins = (placed(each, rows.device) for each in _tokens(encoded, spans))
        # Those of the spans alone: in float32 all of them would be gigabytes, too.
        spanned_tokens = encoded.user_tokens[tokens].float()
        places = torch.arange(len(tokens), device=rows.device)
        means = functional.embedding_bag(places, spanned_tokens, begins, mode="mean")
        spanned = self.span(torch.cat([means.to(dtype), encoded.states[rows]], dim=-1))
        names = self.name(encoded.ontology.slot_vectors.to(dtype))
        cosine = functional.normalize(spanned.float(), dim=-1) @ functional.normalize(names.float(), dim=-1).T
        return self.scale.exp().clamp(max=100) * cosine

    def _name_loss(self, encoded: Encoded) -> Tensor:
        index = {name: position for position, name in enumerate(encoded.ontology.slots)}
        spans, names = [], []
        for row, turn in enumerate(encoded.turns):
            for slot in (turn.annotation.slots or []) if turn.annotation else []:
                tokens = _tokens_of(slot, encoded.user_offsets[row])
                if tokens and slot.name in index:
                    spans.append(_Span(row, tokens[0], tokens[-1] + 1))
                    names.append(index[slot.name])
        if not spans:
            return encoded.states.sum() * 0.0
        return functional.cross_entropy(
            self._name_logits(encoded, spans), torch.tensor(names, device=encoded.states.device)
        )

    # Proposals

    def _accepted(self, encoded: Encoded) -> list[list[SlotLabel]]:
        found: list[list[SlotLabel]] = [[] for _ in range(encoded.states.shape[0])]
        turns = encoded.turns
        for row, (name, value), _, sure in self._judged(encoded):
            if sure >= 0.5:
                said = Slot.said_in(turns[row].text or "", name, value)
                found[row].append(SlotLabel(name, value, said.start, said.end, sure))
        return [_distinct(slots) for slots in found]

    def _judged(self, encoded: Encoded) -> Iterator[tuple[int, tuple[str, str], list[float], float]]:
        """Each proposal's turn, its slot and value, what is known of it, and the probability that it is meant."""
        proposals = _proposals(encoded)
        if proposals.turns:
            accepted = self.probabilities(self._proposal_logits(encoded, proposals))[:, 1].tolist()
            yield from zip(*proposals, accepted, strict=True)

    def _proposal_logits(self, encoded: Encoded, proposals: _Proposals) -> Tensor:
        """(P, 2): not meant, meant."""
        device, dtype = encoded.states.device, self.proposal.weight.dtype
        pairs = self.proposal(encoded.pairs.to(dtype))
        parts = []
        for first in range(0, len(proposals.turns), _PROPOSALS):
            part = slice(first, first + _PROPOSALS)
            keys = torch.tensor([encoded.pair_texts[key] for key in proposals.keys[part]], device=device)
            vectors = pairs[keys]  # (proposals of the part, D)
            states = encoded.states[torch.tensor(proposals.turns[part], device=device)]
            sources = torch.tensor(proposals.sources[part], device=device, dtype=dtype)
            parts.append(self.accept(torch.cat([states, states * vectors, sources], dim=-1)))
        return torch.cat(parts)

    def _proposal_loss(self, encoded: Encoded) -> Tensor:
        proposals = _proposals(encoded)
        turns = encoded.turns
        targets = []
        for row, (name, value) in zip(proposals.turns, proposals.keys, strict=True):
            annotation = turns[row].annotation
            if annotation is None or annotation.slots is None:
                targets.append(IGNORE)
            else:
                targets.append(int((name, value.lower()) in _meant(annotation.slots)))
        if all(target == IGNORE for target in targets):
            return encoded.states.sum() * 0.0
        return functional.cross_entropy(
            self._proposal_logits(encoded, proposals).float(),
            torch.tensor(targets, device=encoded.states.device),
            ignore_index=IGNORE,
        )


def scores(probabilities: Tensor) -> Tensor:
    """(M,) probabilities that a slot is right → (M, 2) scores, of which a softmax gives them: not right, right."""
    odds = torch.logit(probabilities, eps=_LEAST)
    return torch.stack([torch.zeros_like(odds), odds], dim=-1)


def _meant(slots: Sequence[Slot]) -> set[tuple[str, str]]:
    """Names and values of annotated slots."""
    return {(slot.name, slot.value.lower()) for slot in slots}


def proposed(dialogue: Dialogue, index: int) -> dict[tuple[str, str], list[float]]:
    """(slot, value) → what is known of the proposal, for one turn of a dialogue."""
    turn = dialogue.turns[index]
    proposals: dict[tuple[str, str], list[float]] = {}
    known_scores = [each.score for each in turn.nlu if each.score is not None]
    weights = posterior(known_scores) if len(known_scores) == len(turn.nlu) else [0.0] * len(turn.nlu)
    for rank, (hypothesis, weight) in enumerate(zip(turn.nlu, weights, strict=True)):
        for name, value in dict.fromkeys((slot.name, slot.value) for slot in hypothesis.slots):
            known = proposals.setdefault((name, value), [0.0] * _SOURCES)
            known[0 if rank == 0 else 1] = 1.0
            known[3] += weight
    if index + 1 < len(dialogue.turns) and dialogue.turns[index + 1].nlu:
        for slot in dialogue.turns[index + 1].nlu[0].slots:
            proposals.setdefault((slot.name, slot.value), [0.0] * _SOURCES)[2] = 1.0
    return proposals


def _proposals(encoded: Encoded) -> _Proposals:
    found = _Proposals([], [], [])
    for first, dialogue in zip(encoded.first, encoded.dialogues, strict=True):
        for index in range(len(dialogue.turns)):
            for key, known in proposed(dialogue, index).items():
                found.turns.append(first + index)
                found.keys.append(key)
                found.sources.append(known)
    return found


def _tagged(tags: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> list[_Span]:
    """The spans that (K,) tags name, of turns whose tokens begin at `starts`, (N + 1,)."""
    is_first = np.zeros(len(tags), dtype=bool)
    is_first[starts[:-1][np.diff(starts) > 0]] = True
    # A value may also begin with INSIDE where the tagger was unsure of its first token.
    (begins,) = ((tags == BEGIN) | ((tags == INSIDE) & (is_first | (np.roll(tags, 1) == OUTSIDE)))).nonzero()
    (stops,) = np.append((tags != INSIDE) | is_first, True).nonzero()
    ends = stops[np.searchsorted(stops, begins, side="right")]
    turns = np.searchsorted(starts, begins, side="right") - 1
    return [_Span(*each) for each in np.stack([turns, begins - starts[turns], ends - starts[turns]], axis=1).tolist()]


def _tokens(encoded: Encoded, spans: Sequence[_Span]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows in `user_tokens` of all tokens of these spans, and where among them each span begins."""
    turns, starts, ends = np.array(spans).T
    lengths = ends - starts
    return ranges(encoded.user_starts[turns] + starts, lengths), np.cumsum(lengths) - lengths


def _allowed(
    ontology: EncodedOntology, reachable: Sequence[Reachable], intents: Sequence[IntentLabel], values: Sequence[str]
) -> Tensor:
    """(spans, S) log-probabilities that a span with that value, of a turn with that intent from which that can be
    reached, is one of these slots. What is `reachable` has some slots."""
    places = {name: index for index, name in enumerate(ontology.slots)}
    probabilities = torch.ones(len(intents), len(places))
    columns: dict[frozenset[str], Tensor] = {}
    by_reach: dict[int, list[int]] = {}
    for row, (reach, intent) in enumerate(zip(reachable, intents, strict=True)):
        # Nothing follows from an intent without slots, such as a greeting.
        own = None if intent.abstained else reach.slots_by_intent.get(intent.name or "")
        own = own or reach.slots
        if len(own) < len(places):
            if own not in columns:
                columns[own] = torch.tensor([places[name] for name in own])
            probabilities[row] = _UNLIKELY
            probabilities[row, columns[own]] = 1.0
        by_reach.setdefault(id(reach), []).append(row)
    for rows in by_reach.values():
        for name, known in reachable[rows[0]].closed_slots.items():
            others = [row for row in rows if values[row].lower() not in known]
            probabilities[others, places[name]] = _UNLIKELY
    return probabilities.log().to(ontology.slot_vectors.device)


def _distinct(slots: Sequence[SlotLabel]) -> list[SlotLabel]:
    """The proposals without those that a surer one makes superfluous, in their order."""
    kept: dict[str, list[SlotLabel]] = {}
    for slot in sorted(slots, key=lambda each: -each.confidence):
        of_name = kept.setdefault(slot.name, [])
        if not any(_same(slot, each) or _overlap(slot, each) for each in of_name):
            of_name.append(slot)
    chosen = {id(slot) for of_name in kept.values() for slot in of_name}
    return [slot for slot in slots if id(slot) in chosen]


def _overlap(one: SlotLabel, other: SlotLabel) -> bool:
    """Whether the value of one is a run of the other's words."""
    pieces = (f" {one.value.lower()} ", f" {other.value.lower()} ")
    return pieces[0] in pieces[1] or pieces[1] in pieces[0]


def _same(one: SlotLabel, other: SlotLabel) -> bool:
    if one.name != other.name:
        return False
    if one.start is None or one.end is None or other.start is None or other.end is None:
        return one.value.lower() == other.value.lower()
    return one.start < other.end and other.start < one.end


def _place(turn: Turn, offsets: npt.NDArray[np.int64], start: int, end: int) -> tuple[int, int]:
    """The characters of the words that the user's tokens start … end - 1 are of."""
    return _whole_words(turn.text or "", int(offsets[start][0]), int(offsets[end - 1][1]))


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """The span widened to the words that it is in: a tagger of word pieces can miss the first or last piece."""
    while 0 < start < len(text) and text[start].isalnum() and text[start - 1].isalnum():
        start -= 1
    while 0 < end < len(text) and text[end - 1].isalnum() and text[end].isalnum():
        end += 1
    return start, end


def _tokens_of(slot: Slot, offsets: object) -> list[int]:
    """Positions of the user tokens that overlap the slot's span."""
    if slot.start is None or slot.end is None or slot.start >= slot.end:
        return []
    return [
        position
        for position, (start, end) in enumerate(offsets.tolist())  # type: ignore[attr-defined]
        if start < slot.end and end > slot.start
    ]
