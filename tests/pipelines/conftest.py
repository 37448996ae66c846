"""What tests of the jobs that read labels need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Output(NamedTuple):
    """A labelled output, and the folder with the logs that it was made of."""

    labels: Path
    logs: Path


SPOKEN: dict[str, Any] = {
    "dialogue_id": "x",
    "started_at": "2026-03-01T08:15:00Z",
    "locale": "en-GB",
    "device": "speaker",
    "user_id": "u1",
    "turns": [
        {
            "started_at": "2026-03-01T08:15:02Z",
            "asr": [{"text": "play jazz", "score": 0.6}, {"text": "pay jazz", "score": 0.3}],
            "nlu": [
                {"domain": "music", "intent": "play_music", "slots": [{"name": "genre", "value": "jazz"}], "score": 0.9}
            ],
            "entities": [{"slot": "genre", "value": "jazz", "entity_id": "g1", "name": "Jazz", "score": 0.8}],
            "response": {"text": "Here is jazz.", "action": "play", "status": "success"},
            "wake_score": 0.7,
            "barge_in": True,
        },
        {"text": "stop"},
    ],
}
TYPED: dict[str, Any] = {"dialogue_id": "typed", "turns": [{"text": "stop the music"}]}


@pytest.fixture(scope="session")
def labelled_output(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Output:
    """Two datasets by a model that knows nothing: calls in two files with rejects, and single turns.

    Both have a dialogue `x`. Do not write into it: copy it.
    """
    from pipelines import label

    folder = tmp_path_factory.mktemp("labelled")
    logs, labels = folder / "logs", folder / "out"
    logs.mkdir()
    again = [
        {**SPOKEN, "turns": [{"text": "not this one"}, {"text": "nor this"}]},
        {**TYPED, "turns": [{"text": "no"}]},
    ]
    calls = {
        "calls-1.jsonl": [json.dumps(SPOKEN), "{"],
        "calls-2.jsonl": [*map(json.dumps, [again[0], TYPED, again[1]])],
    }
    for name, lines in calls.items():
        (logs / name).write_text("\n".join(lines))
    events = [("11:00", "and pop"), ("09:00", "play rock"), ("09:01", "louder"), ("09:00", "play rock")]
    (logs / "turns.jsonl").write_text(
        "\n".join(
            json.dumps({"session_id": "x", "started_at": f"2026-03-02T{at}:00Z", "text": said, "device": "car"})
            for at, said in events
        )
    )
    output = ["--output", str(labels), "--model", str(tiny_model_dir), "--no-progress"]
    label.run(["--input", str(logs / "calls-*.jsonl"), "--max-reject-rate", "0.6", *output])
    label.run(["--input", str(logs / "turns.jsonl"), "--input-format", "turns", *output])
    return Output(labels, logs)
