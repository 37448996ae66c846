"""The User Satisfaction Simulation data (USS), with what several people said of each turn, as canonical logs.

    python benchmarks/uss.py --input SGD.txt.gz --output uss-sgd.jsonl.gz
    faultline evaluate --input uss-sgd.jsonl.gz --part all --output evaluation

Sun et al., *Simulating User Satisfaction for the Evaluation of Task-oriented Dialogue Systems* (SIGIR 2021). A dialogue
is a block of lines, with a blank line between two: role (USER, SYSTEM), text, action and ratings, with tabs between,
and after them, in some files, an explanation. A record of Faultline's readers is one line, so the blocks become the
canonical jsonl here. The data have no licence: evaluate with them, and train nothing that others get.

A turn is what the user said at once, with what the system said until the user spoke again; what it says before the
first request is the dialogue's `opening`.

- People rated each utterance of the user, from 1 (very dissatisfied) to 5, by how the system has served the user up to
  there. So a rating is of the turn *before* it, whose response the user reacts to; what is said of the first turn is
  left out, and the last turn has no ratings. The data bear that out: where the system failed or offered what was not
  asked for, the user's next utterance is rated lower than the one that led to it.
- Of several utterances that are one turn, a person's rating is the mean.
- The last line, `USER OVERALL`, has the ratings of the whole dialogue.
- The ratings of a dialogue are in one order of people, and each line has as many; who they are is not said.
- Actions and explanations are left out. Neither failure points nor any other label is annotated.
- Dialogues have no id: theirs is the file's name and their number in it.

What is not of this form ends the conversion, which names the line.
"""

from __future__ import annotations

import argparse
import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import msgspec

from schemas.log import Dialogue, DialogueAnnotation, Response, Turn, TurnAnnotation, validate
from schemas.rejects import RecordError, RejectReason, Stage

USER, SYSTEM = "USER", "SYSTEM"
OVERALL = "OVERALL"
_RATINGS = frozenset("12345")


class _Line(NamedTuple):
    number: int
    role: str
    text: str
    ratings: list[float]


def main() -> None:
    """Converts a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--input", type=Path, required=True, metavar="FILE", help="a file of USS, plain or gzip")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="canonical logs, .jsonl.gz")
    options = parser.parse_args()
    try:
        content = options.input.read_bytes()
        text = (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).decode()
        found = list(dialogues(text.split("\n"), options.input.name.partition(".")[0]))
    except OSError as error:
        parser.error(f"{options.input} cannot be read ({error.strerror or error}): give a file of USS.")
    except (EOFError, UnicodeDecodeError, zlib.error) as error:
        parser.error(f"{options.input} is no text in UTF-8, or a damaged gzip file ({error}): download it again.")
    except RecordError as error:
        parser.error(f"{options.input}: {error.message}")
    options.output.write_bytes(gzip.compress(msgspec.json.Encoder().encode_lines(found), mtime=0))


def dialogues(lines: Iterable[str], name: str) -> Iterator[Dialogue]:
    """The dialogues of a file of that name. Raises `RecordError` for what is not of the form."""
    numbered = ((number, line.rstrip("\r")) for number, line in enumerate(lines, start=1))
    blocks = (block for filled, block in groupby(numbered, key=lambda each: bool(each[1].strip())) if filled)
    for number, block in enumerate(blocks, start=1):
        yield _dialogue([_line(*each) for each in block], f"{name}-{number}")


def _line(number: int, line: str) -> _Line:
    fields = line.split("\t")
    if len(fields) < 4 or fields[0] not in (USER, SYSTEM):
        raise _wrong(number, f"no role ({USER}, {SYSTEM}), text, action and ratings with tabs between")
    role, text, _, ratings = fields[:4]
    rated = ratings.split(",") if ratings else []
    if bool(rated) != (role == USER) or not _RATINGS.issuperset(rated):
        raise _wrong(number, f"the ratings {ratings!r}: a user's utterance has numbers from 1 to 5, a system's none")
    return _Line(number, role, text, [float(each) for each in rated])


def _dialogue(lines: Sequence[_Line], dialogue_id: str) -> Dialogue:
    *said, overall = lines
    if [each.number for each in lines if (each.role, each.text) == (USER, OVERALL)] != [overall.number]:
        raise _wrong(overall.number, f"the dialogue that ends here has not one line {USER} {OVERALL}, the last")
    opening: str | None = None
    turns: list[Turn] = []
    for role, group in groupby(said, key=lambda each: each.role):
        block = list(group)
        text = " ".join(each.text for each in block)
        if role == SYSTEM and turns:
            turns[-1].response = Response(text=text)
        elif role == SYSTEM:
            opening = text
        else:
            for each in block:
                if len(each.ratings) != len(overall.ratings):
                    raise _wrong(each.number, f"{len(each.ratings)} ratings in a dialogue of {len(overall.ratings)}")
            if turns:
                of_people = zip(*(each.ratings for each in block), strict=True)
                turns[-1].annotation = TurnAnnotation(ratings=[fmean(each) for each in of_people])
            turns.append(Turn(text=text))
    annotation = DialogueAnnotation(ratings=overall.ratings)
    try:
        return validate(Dialogue(dialogue_id=dialogue_id, turns=turns, opening=opening, annotation=annotation))
    except RecordError as error:
        raise _wrong(overall.number, f"the dialogue that ends here: {error.message}") from None


def _wrong(number: int, what: str) -> RecordError:
    return RecordError(Stage.PARSE, RejectReason.INVALID_VALUE, f"line {number}: {what}")


if __name__ == "__main__":
    main()
