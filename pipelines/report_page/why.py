"""What moved the model, for the first of the examples: asked of the model that made the labels.

The answer is only shown where the model, asked again about the same log, still says what the label says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from pipelines.errors import JobError, UserError
from pipelines.labelled import Labelled
from pipelines.logs import logged_ontology
from pipelines.privacy import Privacy
from pipelines.publish import Manifest
from pipelines.report_page.examples import Effect, Example, cut
from schemas.formats import get_format
from schemas.log import Dialogue
from schemas.ontology import Ontology

if TYPE_CHECKING:
    from labelers.explanation import Explanation, Influence

SHOWN = 6
"""What moved a turn's label most is shown, up to so many."""
LEAST = 0.01
"""A change of the probability that is less is not shown."""
TOLERANCE = 0.02
"""How far the probability that is explained may be from the label's: batches of other shapes round differently."""

NAMES = {
    "words": "the words that were recognised",
    "other hypotheses": "the recogniser's other hypotheses",
    "recognition scores": "the recogniser's scores",
    "understanding": "what the NLU understood",
    "understanding scores": "the NLU's scores",
    "entities": "the entities that were resolved",
    "response": "the response",
    "barge-in": "whether the user spoke over the response",
    "feedback": "the user's feedback on the response",
    "wake score": "the wake word's score",
    "times": "when it was said",
    "device and locale": "the device and the locale",
}
"""What the page calls each `labelers.explanation.Evidence` of the turn itself."""


def effects(
    labelled: Labelled, examples: Sequence[Example], registry: str
) -> tuple[dict[Example, list[Effect]], list[str]]:
    """What moved the labels of these turns, and a sentence on each run of which it cannot be told.

    `registry` is the MLflow store that a model named `models:/…` is read from.
    """
    found: dict[Example, list[Effect]] = {}
    notes: list[str] = []
    for manifest in labelled.manifests:
        of_run = [example for example in examples if example.dataset == manifest.dataset]
        if not of_run:
            continue
        try:
            told = _effects(labelled, manifest, of_run, registry)
        except _Unknown as error:
            notes.append(f"What moved the model is not told of run {manifest.run_id}: {error}")
            continue
        found |= told
        if len(told) < len(of_run):
            notes.append(
                f"What moved the model is told of {len(told):,} of {len(of_run):,} turns: of the others the log is not "
                "there as it was labelled, so that the model, asked again, does not say what the label says."
            )
    return found, notes


class _Unknown(Exception):  # noqa: N818 - it says what is the case
    """Why it cannot be told."""


def _effects(
    labelled: Labelled, manifest: Manifest, examples: Sequence[Example], registry: str
) -> dict[Example, list[Effect]]:
    from labelers.explanation import explain_all
    from labelers.model import ModelError
    from pipelines.labelling import load_model

    summary = manifest.summary
    try:
        model = load_model(summary.model_uri, registry)
    except (JobError, ModelError) as error:
        raise _Unknown(str(error)) from None
    if model.version != summary.model_version:
        raise _Unknown(f"the model {summary.model_uri} is now {model.version}, and was {summary.model_version}.")
    try:
        logs: dict[tuple[str, str], Dialogue] = dict(
            labelled.dialogues({(each.dataset, each.dialogue_id) for each in examples})
        )
    except UserError as error:
        raise _Unknown(str(error)) from None
    there = [
        each
        for each in examples
        if (log := logs.get((each.dataset, each.dialogue_id))) is not None and each.turn_index < len(log.turns)
    ]
    privacy = Privacy.of_run(manifest.settings)
    explanations = explain_all(
        model, [(logs[each.dataset, each.dialogue_id], each.turn_index) for each in there], _ontology(manifest)
    )
    return {
        example: _shown(explanation, privacy.hide_texts(logs[example.dataset, example.dialogue_id]))
        for example, explanation in zip(there, explanations, strict=True)
        if _is_the_label(labelled, example, explanation)
    }


def _ontology(manifest: Manifest) -> Ontology | None:
    """As the run had it: the user's, else the logs' own, else (None) the model's."""
    given: Any = manifest.settings["ontology"]
    if given is not None:
        return msgspec.convert(given, Ontology)
    return logged_ontology(manifest.sources, get_format(manifest.summary.input_format))


def _is_the_label(labelled: Labelled, example: Example, explanation: Explanation) -> bool:
    [(point, probability)] = labelled.connection.execute(
        "SELECT failure_point, defect_probability FROM turns WHERE dataset = ? AND dialogue_id = ? AND turn_index = ?",
        list(example),
    ).fetchall()
    return bool(point == explanation.failure_point) and abs(probability - explanation.defect_probability) <= TOLERANCE


def _shown(explanation: Explanation, dialogue: Dialogue) -> list[Effect]:
    moved = [each for each in explanation.influences if max(abs(each.defect), abs(each.failure_point)) >= LEAST]
    return [
        Effect(_said(each, dialogue), round(each.defect, 3), round(each.failure_point, 3)) for each in moved[:SHOWN]
    ]


def _said(influence: Influence, dialogue: Dialogue) -> str:
    if influence.evidence == "turn":
        return f"turn {influence.turn_index} (“{cut(dialogue.turns[influence.turn_index].text)}”)"
    return NAMES[influence.evidence]
