"""What a run keeps from its readers: ids that are pseudonyms (`--pseudonymize`) and texts that are masked (`--redact`).

`faultline label` decides the labels on the log as it is, and hides what it writes. The jobs that show the log beside
the labels read it again and hide the same, as the run's manifest says. What is in a log's files, in _staging while a
run works, and in file names, is not touched.

A pseudonym is the first 32 hexadecimal digits of HMAC-SHA256 (RFC 2104) of the id in UTF-8, under a key that only
the environment knows: one id has one pseudonym wherever the same key is used, and without the key nobody can try out
ids. Of the dialogue id `SESSION#2`, the second dialogue of a session, `SESSION` is replaced, so that a session stays
together. Whether Faultline or the log wrote the number an id does not say: one of more than three digits, which may be
a phone's, is replaced with the rest.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pipelines import storage
from pipelines.errors import UserError
from pipelines.redaction import redacted, redacted_value
from schemas.labels import DialogueLabels
from schemas.log import Dialogue, Slot, Turn
from schemas.rejects import Reject, RejectReason

KEY = "FAULTLINE_PSEUDONYM_KEY"
"""The environment variable that holds the key."""
KEY_FILE = "FAULTLINE_PSEUDONYM_KEY_FILE"
"""The environment variable that names a file with the key."""
LEAST_KEY = 16
"""Bytes of a key at least: a shorter one could be found by trying."""
LEFT_OUT = "(left out: the run was told to --pseudonymize)"
"""What `rejected.raw` holds in place of a record, whose ids nobody can find."""

_DIGITS = 32
_PART = re.compile(r"(?P<session>.+?)(?P<number>#[1-9][0-9]{0,2})?", re.DOTALL)
"""A dialogue's id, with the number that the grouping of single turns, and the reader of Rasa's trackers, ends it in."""
_MAKE_ONE = "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"


class Id(StrEnum):
    """What can be a pseudonym: fields of a dialogue."""

    DIALOGUE_ID = "dialogue_id"
    USER_ID = "user_id"
    DEVICE = "device"


class Privacy(Struct, frozen=True):
    """What a run hides. It holds no key, so that it can travel to workers and stand in `run.json`."""

    pseudonymize: tuple[Id, ...] = ()
    key_id: str | None = None
    """Tells one key from another, and says nothing else of it."""
    redact: bool = False

    @classmethod
    def of(cls, pseudonymize: Iterable[Id], redact: bool) -> Privacy:
        """What is asked for, with the key of the environment. Raises `UserError` where there is none."""
        fields = tuple(pseudonymize)
        return cls(fields, _key_id(key()) if fields else None, redact)

    @classmethod
    def of_run(cls, settings: Mapping[str, Any]) -> Privacy:
        """What a run hid, by the settings in its manifest; those of older runs say nothing of it."""
        return msgspec.convert(settings.get("privacy", {}), cls)

    def check_key(self) -> None:
        """Raises `UserError` where the environment has not the key that the run had."""
        if self.pseudonymize and _key_id(key()) != self.key_id:
            raise UserError(
                f"The key in {KEY} or {KEY_FILE} is not the one that made the pseudonyms of the run: give that one."
            )

    def dialogue_id(self, value: str) -> str:
        """The id as the tables have it."""
        return self._hidden(Id.DIALOGUE_ID, value) if Id.DIALOGUE_ID in self.pseudonymize else value

    def hide_ids(self, dialogue: Dialogue) -> Dialogue:
        """The dialogue with pseudonyms for ids; a copy where there is something to replace."""
        new = {
            field: self._hidden(field, value)
            for field in self.pseudonymize
            if (value := getattr(dialogue, field)) is not None
        }
        return replace(dialogue, **new) if new else dialogue

    def hide_texts(self, dialogue: Dialogue) -> Dialogue:
        """The dialogue with its texts masked: what was heard, understood, resolved, done, said and annotated."""
        if not self.redact:
            return dialogue
        return replace(dialogue, opening=_text(dialogue.opening), turns=[_turn(turn) for turn in dialogue.turns])

    def hide_slots(self, dialogue: Dialogue, labels: DialogueLabels) -> None:
        """Masks the values of the slots that were found in this dialogue, in place."""
        if not self.redact:
            return
        for turn, labelled in zip(dialogue.turns, labels.turns, strict=True):
            for slot in labelled.slots:
                slot.value = redacted_value(slot.value, slot.start, slot.end, turn.text or "")

    def hide_reject(self, reject: Reject) -> Reject:
        """The reject as `rejected` may have it. Its message names no id but that of a repeated dialogue."""
        raw = reject.raw
        if raw is not None and self.pseudonymize:
            raw = LEFT_OUT
        if not self.redact:
            return dataclasses.replace(reject, raw=raw)
        # An id is no text, and the logs are joined by it.
        message = reject.message if reject.reason == RejectReason.DUPLICATE_ID else redacted(reject.message)
        return dataclasses.replace(reject, message=message, raw=None if raw is None else redacted(raw))

    @staticmethod
    def _hidden(field: Id, value: str) -> str:
        parts = _PART.fullmatch(value) if field is Id.DIALOGUE_ID else None
        if parts is None:
            return pseudonym(key(), value)
        return pseudonym(key(), parts["session"]) + (parts["number"] or "")


def key() -> bytes:
    """The key of the environment. Raises `UserError` where there is none, or too short a one."""
    return _key(os.environ.get(KEY), os.environ.get(KEY_FILE))


def pseudonym(key: bytes, value: str) -> str:
    """What stands for an id; an empty one stays, as it names nobody."""
    if not value:
        return value
    return hmac.digest(key, value.encode("utf-8", errors="surrogatepass"), hashlib.sha256).hex()[:_DIGITS]


@functools.cache
def _key(text: str | None, path: str | None) -> bytes:
    if text:
        found = os.fsencode(text)  # which may be any bytes
    elif path:
        try:
            found = Path(storage.absolute(path)).read_bytes().strip()
        except OSError as error:
            raise UserError(f"Cannot read {KEY_FILE} {path} ({error.strerror}): name a file with the key.") from None
    else:
        raise UserError(
            f"Pseudonyms need a key that stays the same: put it into the environment variable {KEY}, or the path of a "
            f"file with it into {KEY_FILE} ({_MAKE_ONE})."
        )
    if len(found) < LEAST_KEY:
        raise UserError(
            f"The key in {KEY if text else KEY_FILE} has {len(found)} bytes, so that it could be found by trying: give "
            f"one of at least {LEAST_KEY} ({_MAKE_ONE})."
        )
    return found


def _key_id(key: bytes) -> str:
    return hmac.digest(key, b"which key of faultline is this?", hashlib.sha256).hex()[:8]


def _turn(turn: Turn) -> Turn:
    text, response, annotation = turn.text or "", turn.response, turn.annotation
    if response is not None:
        response = replace(
            response, text=_text(response.text), action=_text(response.action), status=_text(response.status)
        )
    if annotation is not None:
        slots = annotation.slots
        annotation = replace(
            annotation,
            transcript=_text(annotation.transcript),
            slots=None if slots is None else _slots(slots, text),
        )
    return replace(
        turn,
        text=_text(turn.text),
        asr=[replace(each, text=redacted(each.text)) for each in turn.asr],
        nlu=[replace(each, slots=_slots(each.slots, text)) for each in turn.nlu],
        entities=[
            replace(each, value=_text(each.value), entity_id=_text(each.entity_id), name=_text(each.name))
            for each in turn.entities
        ],
        response=response,
        annotation=annotation,
    )


def _slots(slots: Sequence[Slot], text: str) -> list[Slot]:
    return [replace(slot, value=redacted_value(slot.value, slot.start, slot.end, text)) for slot in slots]


def _text(text: str | None) -> str | None:
    return None if text is None else redacted(text)
