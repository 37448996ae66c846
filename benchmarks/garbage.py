"""A large input of which a tenth is garbage: is every record accounted for, and in how much memory?

    python benchmarks/garbage.py --megabytes 5120 --folder /data/garbage [--logs GLOB --format NAME] [-- OPTION …]

The input is what a Rasa assistant leaves after some months: trackers as `mongoexport` writes them out of a MongoDB
tracker store, one conversation a line, with the fields that Rasa 3 writes (an event for every action, the tokens, the
ranking of ten intents, the response selector). A turn has some 4 KB in it: logs of gigabytes look like this. The
conversations are those of `--logs`, with the understanding that was live in them, else simulated ones; where they do
not suffice they are copied, each copy with an id of its own. Every second file is gzip.

Of the records a tenth is garbage of the kinds of `GARBAGE`, put in at random, and one plain and one gzip file begin
with a record that is larger than any may be. The job is run as a user runs it. Then
its tables are held against what was written: a good record must be in `dialogues` by its id, a bad one in `rejected` by
its file and line, with its reason, and nothing else anywhere. Memory is that of the whole process tree (PSS: shared
pages are counted once), every half second. Options after `--` are those of `faultline label`.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipelines import simulate
from pipelines.chunks import RECORD_LIMIT
from pipelines.cli import guarded
from pipelines.logs import read_logs
from pipelines.plan import find_sources
from schemas.log import Dialogue, Turn

SECONDS_BETWEEN_SAMPLES = 0.5
RANKED_INTENTS = 10


class Written(NamedTuple):
    """What the input holds."""

    bytes: int
    """Uncompressed."""
    dialogues: set[str]
    garbage: dict[tuple[str, int], str]
    """Its reason by the file's name and the line."""
    kinds: Counter[str]


class Run(NamedTuple):
    code: int
    seconds: float
    memory: list[int]
    """Bytes of the whole process tree, over the time of the run."""


def tracker(dialogue: Dialogue, sender: str, intents: Sequence[str]) -> dict[str, Any]:
    """The dialogue as Rasa's tracker store keeps it."""
    events: list[dict[str, Any]] = []
    for number, turn in enumerate(dialogue.turns):
        at = (turn.started_at.timestamp() if turn.started_at else 1.7e9 + 20 * number) + 0.25
        events.append(_action("action_session_start" if number == 0 else "action_listen", at))
        if number == 0:
            events.append({"event": "session_started", "timestamp": at})
        events.append(_user(turn, f"{sender}-{number}", at, intents))
        events.append({"event": "user_featurization", "timestamp": at + 0.1, "use_text_for_featurization": False})
        for slot in turn.nlu[0].slots if turn.nlu else []:
            events.append({"event": "slot", "timestamp": at + 0.1, "name": slot.name, "value": slot.value})
        if turn.response is not None:
            name = f"utter_{turn.response.action or 'answer'}"
            events += [_action(name, at + 0.2), _bot(turn.response.text, name, at + 0.3)]
    last = next(event for event in reversed(events) if event["event"] == "user")
    return {
        "sender_id": sender,
        "slots": {event["name"]: event["value"] for event in events if event["event"] == "slot"},
        "latest_message": last["parse_data"],
        "latest_event_time": events[-1]["timestamp"],
        "followup_action": None,
        "paused": False,
        "events": events,
        "latest_input_channel": "rest",
        "active_loop": {},
        "latest_action": {"action_name": "action_listen"},
        "latest_action_name": "action_listen",
    }


def _action(name: str, at: float) -> dict[str, Any]:
    return {
        "event": "action",
        "timestamp": at,
        "metadata": {"model_id": "4a9c0f7de55d4b3ab2ad8f4cfd4d2f5c", "assistant_id": "restaurants"},
        "name": name,
        "policy": "policy_2_TEDPolicy",
        "confidence": 0.9731,
        "action_text": None,
        "hide_rule_turn": False,
    }


def _user(turn: Turn, message: str, at: float, intents: Sequence[str]) -> dict[str, Any]:
    text = turn.text or "…"
    heard = {each.intent: each.score or 0.0 for each in reversed(turn.nlu) if each.intent}
    ranking = [*reversed(heard.items()), *((name, 0.0) for name in intents if name not in heard)][:RANKED_INTENTS]
    ends, tokens = 0, []
    for word in text.split():
        start = text.index(word, ends)
        ends = start + len(word)
        tokens.append([start, ends])
    return {
        "event": "user",
        "timestamp": at,
        "metadata": {"model_id": "4a9c0f7de55d4b3ab2ad8f4cfd4d2f5c", "assistant_id": "restaurants"},
        "text": text,
        "parse_data": {
            "intent": {"name": ranking[0][0], "confidence": ranking[0][1]},
            "entities": [
                {
                    "entity": slot.name,
                    "start": slot.start,
                    "end": slot.end,
                    "confidence_entity": 0.998,
                    "value": slot.value,
                    "extractor": "DIETClassifier",
                }
                for slot in (turn.nlu[0].slots if turn.nlu else [])
            ],
            "text": text,
            "message_id": message,
            "metadata": {},
            "text_tokens": tokens,
            "intent_ranking": [{"name": name, "confidence": score} for name, score in ranking],
            "response_selector": {
                "all_retrieval_intents": [],
                "default": {
                    "response": {
                        "responses": None,
                        "confidence": 0.0,
                        "intent_response_key": None,
                        "utter_action": "utter_None",
                    },
                    "ranking": [],
                },
            },
        },
        "input_channel": "rest",
        "message_id": message,
    }


def _bot(text: str | None, name: str, at: float) -> dict[str, Any]:
    nothing = ("elements", "quick_replies", "buttons", "attachment", "image", "custom")
    return {
        "event": "bot",
        "timestamp": at,
        "metadata": {"utter_action": name, "model_id": "4a9c0f7de55d4b3ab2ad8f4cfd4d2f5c"},
        "text": text,
        "data": dict.fromkeys(nothing),
    }


def _with(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Garbage made by a change of the tracker."""

    def make(record: bytes) -> bytes:
        content = json.loads(record)
        change(content)
        return json.dumps(content).encode()

    return make


def _user_event(content: dict[str, Any]) -> dict[str, Any]:
    return next(event for event in content["events"] if event["event"] == "user")


def _outside(content: dict[str, Any]) -> None:
    _user_event(content)["parse_data"]["entities"] = [{"entity": "food", "value": "thai", "start": 0, "end": 100_000}]


GARBAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "cut in the middle": ("invalid_json", lambda record: record[: len(record) // 2]),
    "two records in a line": ("invalid_json", lambda record: record + record),
    "a line of a traceback": ("invalid_json", lambda _: b'  File "/app/actions.py", line 30, in run'),
    "zeros": ("invalid_json", lambda record: b"\x00" * len(record)),
    "nested 100,000 deep": ("invalid_json", lambda record: record[:-1] + b', "slots": ' + b"[" * 100_000),
    "not a number": ("invalid_json", lambda record: record.replace(b'"timestamp": ', b'"timestamp": NaN', 1)),
    "half a surrogate pair": ("invalid_json", _with(lambda content: _user_event(content).update(text="\ud83d"))),
    "Latin-1": ("invalid_utf8", lambda record: record.replace(b'"text": "', b'"text": "caf\xe9 ', 1)),
    "UTF-16": ("invalid_utf8", lambda record: record.decode().encode("utf-16")),
    "a list": ("wrong_type", lambda record: b"[" + record + b"]"),
    "a number of 4,000 digits": ("wrong_type", _with(lambda content: content.update(sender_id=10**4_000))),
    "text that is a list": ("wrong_type", _with(lambda content: _user_event(content).update(text=["a"]))),
    "no sender": ("missing_field", _with(lambda content: content.pop("sender_id"))),
    "no event": ("no_turns", _with(lambda content: content.update(events=[]))),
    "a user who said nothing": ("missing_text", _with(lambda content: _user_event(content).update(text=" "))),
    "an entity outside of its text": ("invalid_value", _with(_outside)),
    "a time beyond the calendar": (
        "invalid_value",
        _with(lambda content: _user_event(content).update(timestamp=1e17)),
    ),
    "the same again": ("duplicate_id", lambda record: record),
}
"""By kind: the reason with which it must be rejected, and how it is made of a good record."""


def simulated(folder: Path) -> str:
    """The conversations that are copied where no others are given."""
    logs = str(folder / "simulated.jsonl.gz")
    simulate.run(["--dialogues", "2000", "--seed", "3", "--output", logs])
    return logs


def records(logs: str, log_format: str) -> Iterator[tuple[str, bytes]]:
    """Good records with their ids, without end; of the logs one file is held at a time."""
    paths = [source.path for source in find_sources([logs])]
    intents: list[str] = []
    for copy in itertools.count():
        for path in paths:
            dialogues = read_logs([path], log_format).dialogues
            if not intents:
                understood = Counter(
                    each.intent for dialogue in dialogues for turn in dialogue.turns for each in turn.nlu
                )
                intents = [name for name, _ in understood.most_common(RANKED_INTENTS) if name]
            for dialogue in dialogues:
                sender = f"{dialogue.dialogue_id}-{copy}"
                yield sender, json.dumps(tracker(dialogue, sender, intents)).encode()


def write(folder: Path, good: Iterator[tuple[str, bytes]], size: int, files: int, share: float, seed: int) -> Written:
    """Writes the input file by file; nothing is held but what must come out of it."""
    rng = random.Random(seed)
    written = Written(0, set(), {}, Counter())
    total = 0
    for number in track(range(files), "Writing the input", console=Console(stderr=True)):
        path = folder / f"trackers-{number:03d}.jsonl{'.gz' if number % 2 else ''}"
        with gzip.open(path, "wb", compresslevel=1) if number % 2 else path.open("wb") as file:
            line = 0
            before: bytes | None = None
            if number < 2:
                line = 1
                file.write(b"a" * (RECORD_LIMIT + 1) + b"\n")
                written.garbage[path.name, line] = "record_too_large"
                written.kinds["larger than a record may be"] += 1
            while total < size * (number + 1) / files:
                line += 1
                sender, record = next(good)
                if rng.random() < share and before is not None:
                    kind = rng.choice(list(GARBAGE))
                    reason, make = GARBAGE[kind]
                    content = make(before if reason == "duplicate_id" else record)
                    written.garbage[path.name, line] = reason
                    written.kinds[kind] += 1
                else:
                    content = before = record
                    written.dialogues.add(sender)
                file.write(content + b"\n")
                total += len(content) + 1
    return written._replace(bytes=total + 2 * (RECORD_LIMIT + 2))


def label(folder: Path, output: Path, options: Sequence[str]) -> Run:
    """Runs the job and watches its memory."""
    command = [sys.executable, "-m", "pipelines.label", "--input", str(folder / "trackers-*"), "--input-format", "rasa"]
    started = time.monotonic()
    memory: list[int] = []
    with subprocess.Popen([*command, "--output", str(output), *options]) as process:
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            memory.append(_memory(tree))
            time.sleep(SECONDS_BETWEEN_SAMPLES)
    return Run(process.returncode, time.monotonic() - started, memory)


def _memory(tree: psutil.Process) -> int:
    total = 0
    try:
        for process in (tree, *tree.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.NoSuchProcess:
        # It ended between two looks: what was seen so far counts.
        pass
    return total


def differences(written: Written, output: Path) -> list[str]:
    """Where the tables are not what the input must give: none, if every record is accounted for."""
    found: list[str] = []
    tables = duckdb.connect()
    ids = [row[0] for row in tables.execute(f"SELECT dialogue_id FROM '{output}/dialogues/**/*.parquet'").fetchall()]
    turns = tables.execute(f"SELECT DISTINCT dialogue_id FROM '{output}/turns/**/*.parquet'").fetchall()
    rejected = tables.execute(f"SELECT source, position, reason FROM '{output}/rejected/**/*.parquet'").fetchall()
    places = {(Path(source).name, position): reason for source, position, reason in rejected}
    comparisons: list[tuple[str, set[Any], set[Any]]] = [
        ("dialogues that are missing or too many", set(ids), written.dialogues),
        ("dialogues without turns, or turns without dialogues", {row[0] for row in turns}, written.dialogues),
        ("rejects that are missing, too many or for another reason", set(places.items()), set(written.garbage.items())),
    ]
    for what, there, expected in comparisons:
        if wrong := there ^ expected:
            found.append(f"{what}: {len(wrong):,}, for example {sorted(wrong)[:3]}")
    if len(ids) != len(set(ids)) or len(rejected) != len(places):
        found.append("a record comes twice")
    return found


def show(written: Written, run: Run, summary: Mapping[str, Any], out: Console) -> None:
    table = Table(title="A tenth of it is garbage", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("bytes, uncompressed", f"{written.bytes:,}")
    table.add_row("records", f"{len(written.dialogues) + len(written.garbage):,}")
    table.add_row("labelled: dialogues", f"{summary['dialogues']:,}")
    table.add_row("labelled: turns", f"{summary['turns']:,}")
    table.add_section()
    for kind, count in sorted(written.kinds.items()):
        table.add_row(f"garbage: {kind}", f"{count:,}")
    table.add_section()
    for reason, count in sorted(summary["rejected"].items()):
        table.add_row(f"rejected: {reason}", f"{count:,}")
    table.add_section()
    fifths = [max(part, default=0) >> 20 for part in np.array_split(run.memory, 5)]
    table.add_row("peak memory of all processes, MiB", f"{max(fifths):,}")
    table.add_row("the same in each fifth of the run, MiB", ", ".join(f"{each:,}" for each in fifths))
    table.add_row("turns a second", f"{summary['turns_per_second']:,.0f}")
    table.add_row("seconds", f"{run.seconds:,.0f}")
    out.print(table)


def main() -> int:
    shared = Path(__file__).parents[1].parent / "shared" / "data" / "dstc2" / "train.jsonl.gz"
    parser = argparse.ArgumentParser(description="Labels a large input of which a tenth is garbage.")
    parser.add_argument("--megabytes", type=int, default=200, help="of input, uncompressed (default: %(default)s)")
    parser.add_argument("--files", type=int, default=8, help="every second is gzip (default: %(default)s)")
    parser.add_argument(
        "--share", type=float, default=0.1, help="of the records that is garbage (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logs", help="path or glob of the conversations (default: dstc2's, else simulated ones)")
    parser.add_argument("--format", default="jsonl", help="of --logs (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where input and output go (default: a temporary folder)")
    parser.add_argument("options", nargs="*", help="of faultline label, after --")
    chosen = parser.parse_args()
    out = Console()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.folder or Path(temporary)) / "input"
        output = folder.parent / "out"
        folder.mkdir(parents=True)
        if chosen.logs is not None:
            logs = chosen.logs, chosen.format
        elif shared.exists():
            logs = str(shared), "dstc2"
        else:
            logs = simulated(folder.parent), "jsonl"
        size = chosen.megabytes << 20
        written = write(folder, records(*logs), size, chosen.files, chosen.share, chosen.seed)
        run = label(folder, output, chosen.options)
        if run.code:
            out.print(f"faultline label ended with {run.code}.")
            return 1
        show(written, run, json.loads((output / "run.json").read_text())["summary"], out)
        wrong = differences(written, output)
    for each in wrong:
        out.print(each, style="red", highlight=False)
    if not wrong:
        out.print("Every record is in exactly one of dialogues and rejected.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(guarded(main))
