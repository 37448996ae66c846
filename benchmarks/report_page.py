"""How large the page of `faultline report` is, how long it takes to make, and how long it takes to open.

    python benchmarks/report_page.py [--turns 100000]

The logs and labels are made up at random, with every kind of evidence that a page shows, and written as
`faultline label` writes them. The page is opened in an installed Chromium, with the network off.
"""

from __future__ import annotations

import argparse
import datetime as dt
import random
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console

from pipelines import report
from pipelines.plan import find_sources
from pipelines.publish import VALIDATION_JSON, Manifest, publish
from pipelines.results import RunSummary, count
from pipelines.staging import FOLDER, Staging
from pipelines.validation import ValidationReport
from schemas.labels import (
    TABLES,
    DialogueLabels,
    GoalLabels,
    Label,
    Provenance,
    Signal,
    SlotLabel,
    TurnLabels,
    to_tables,
)
from schemas.log import AsrHypothesis, Dialogue, FailurePoint, NluHypothesis, Response, Slot, Turn
from schemas.rejects import Reject

CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

_WORDS = [
    "play",
    "stop",
    "the",
    "a",
    "my",
    "weather",
    "music",
    "light",
    "tomorrow",
    "at",
    "seven",
    "call",
    "turn",
    "off",
]
_INTENTS = [f"intent_{number}" for number in range(60)]
_DOMAINS = [f"domain_{number}" for number in range(15)]
_DAY = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


class Labelled(NamedTuple):
    """A dialogue and what the model says of it."""

    log: Dialogue
    labels: DialogueLabels


def write_output(folder: Path, dialogues: Iterable[Labelled], rejects: Iterable[Reject] = ()) -> Path:
    """Writes logs and labels as `faultline label` leaves them: `folder/logs.jsonl` and `folder/out`, which it gives."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(dialogues)
    rejected = list(rejects)
    logs, output = folder / "logs.jsonl", folder / "out"
    logs.write_bytes(b"\n".join(msgspec.json.encode(each.log) for each in pairs) + b"\n")
    run = Provenance(run_id="made-up", model_uri="builtin", model_version="made-up")
    tables = to_tables([each.labels for each in pairs], run)
    tables["rejected"] = pa.Table.from_pylist(
        [{name: getattr(reject, name) for name in TABLES["rejected"].names} for reject in rejected],
        schema=TABLES["rejected"],
    )
    staging = Staging(str(output / FOLDER / "dataset" / run.run_id))
    counts = count(tables)
    counts.records = len(pairs) + len(rejected)
    summary = RunSummary(
        **msgspec.structs.asdict(counts),
        run_id=run.run_id,
        dataset="dataset",
        output=str(output),
        input_format="jsonl",
        model_uri=run.model_uri,
        model_version=run.model_version,
        chunks=1,
        wall_seconds=1.0,
        turns_per_second=1.0,
    )
    manifest = Manifest(
        run_id=run.run_id,
        dataset="dataset",
        inputs=(str(logs),),
        sources=find_sources([str(logs)]),
        settings={"limit": None, "session_gap_minutes": 30.0, "ontology": None},
        summary=summary,
        parts=tuple(staging.write_part("0", name, None, tables[name]) for name in TABLES),
    )
    report_of_suites = ValidationReport({name: table.num_rows for name, table in tables.items()}, [])
    publish(str(output), staging, manifest, {VALIDATION_JSON: report_of_suites.to_json()})
    return output


def made_up(turns: int, seed: int = 0) -> Iterator[Labelled]:
    """Dialogues of up to twelve turns, with at least so many turns in all."""
    chance = random.Random(seed)
    made = 0
    while made < turns:
        dialogue = _dialogue(f"dialogue-{made}", chance)
        made += len(dialogue.log.turns)
        yield dialogue


def _dialogue(dialogue_id: str, chance: random.Random) -> Labelled:
    length = chance.randint(1, 12)
    start = _DAY + dt.timedelta(seconds=chance.randrange(30 * 86_400))
    said = [" ".join(chance.choices(_WORDS, k=chance.randint(1, 12))) for _ in range(length)]
    intents = chance.choices(_INTENTS, weights=range(len(_INTENTS), 0, -1), k=length)
    log = Dialogue(
        dialogue_id=dialogue_id,
        locale=chance.choice(["en-GB", "en-US", "de-DE"]),
        device=chance.choice(["phone", "speaker", "car"]),
        turns=[
            Turn(
                started_at=start + dt.timedelta(seconds=10 * index),
                asr=[AsrHypothesis(text=f"{text} {'x' * rank}".strip(), score=-float(rank)) for rank in range(8)],
                nlu=[
                    NluHypothesis(
                        domain=chance.choice(_DOMAINS),
                        intent=chance.choice(_INTENTS),
                        slots=[Slot(name="thing", value=chance.choice(_WORDS))],
                        score=1 / (rank + 2),
                    )
                    for rank in range(4)
                ],
                response=Response(text="Here is what I found for that.", action=intents[index], status="success"),
            )
            for index, text in enumerate(said)
        ],
    )
    points = [
        chance.choice(list(FailurePoint)) if chance.random() < 0.3 else FailurePoint.CORRECT for _ in range(length)
    ]
    success = chance.random() < 0.8
    goal = f"{dialogue_id}/0"
    labels = DialogueLabels(
        dialogue_id=dialogue_id,
        turn_count=length,
        goal_count=1,
        defect_count=sum(point != FailurePoint.CORRECT for point in points),
        success=success,
        success_confidence=0.9,
        turns=[
            turn_labels(
                dialogue_id,
                index,
                point,
                intent=intents[index],
                confidence=chance.uniform(0.4, 1.0),
                abstained=[Label.FAILURE_POINT] if chance.random() < 0.2 else [],
                signals=[Signal.REPEAT] if index and chance.random() < 0.1 else [],
            )
            for index, point in enumerate(points)
        ],
        goals=[
            GoalLabels(dialogue_id, goal, list(range(length)), intents[0], success, 0.9, FailurePoint.CORRECT, None)
        ],
    )
    return Labelled(log, labels)


def turn_labels(
    dialogue_id: str,
    index: int,
    point: FailurePoint,
    *,
    intent: str | None,
    confidence: float = 0.9,
    abstained: list[Label] | None = None,
    signals: list[Signal] | None = None,
    rephrase_of: int | None = None,
) -> TurnLabels:
    """One turn's labels; its goal is `<dialogue_id>/0`."""
    others = (1 - confidence) / (len(FailurePoint) - 1)
    probabilities = {str(each): confidence if each is point else others for each in FailurePoint}
    return TurnLabels(
        dialogue_id=dialogue_id,
        turn_index=index,
        goal_id=f"{dialogue_id}/0",
        is_goal_start=index == 0,
        intent=intent,
        intent_confidence=None if intent is None else 0.8,
        slots=[SlotLabel("thing", "music", None, None, 0.7)],
        failure_point=point,
        failure_point_confidence=confidence,
        failure_point_probabilities=probabilities,
        defect_probability=1 - probabilities[FailurePoint.CORRECT],
        rephrase_of=rephrase_of,
        feedback_signals=signals or [],
        abstained=abstained or [],
    )


class Opened(NamedTuple):
    """What opening a page costs, in seconds."""

    wall: float
    """From asking for it until it is drawn and its dialogues can be filtered."""
    busy: float
    """Processor time of the page's main thread in that."""


def opened(page_file: Path, browser: Browser) -> Opened:
    """Opens a page with the network off."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    started = time.monotonic()
    page.goto(page_file.as_uri(), timeout=300_000)
    page.locator("#list button").first.wait_for(timeout=300_000)
    wall = time.monotonic() - started
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    context.close()
    return Opened(wall, metrics["TaskDuration"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=100_000)
    turns = parser.parse_args().turns
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        parser.error("there is no Chromium to open the page with")
    out = Console()
    with tempfile.TemporaryDirectory() as folder:
        output = write_output(Path(folder), made_up(turns))
        started = time.monotonic()
        page = Path(report.run(["--labels", str(output), "--explain", "0"]))
        out.print(f"made in {time.monotonic() - started:.1f} s, {page.stat().st_size / 1e6:.1f} MB")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM, timeout=300_000)
            wall, busy = opened(page, browser)
            browser.close()
        out.print(f"opened in {wall:.1f} s, of which the page's main thread was busy {busy:.1f} s")


if __name__ == "__main__":
    main()
