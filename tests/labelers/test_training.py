"""Training and calibration, with a model of the smallest sizes."""

from __future__ import annotations

import copy
import io
import math
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from labelers.base import IGNORE
from labelers.failure_point import POINTS
from labelers.learning import Source, schedule
from labelers.model import Model
from labelers.training import (
    FEEDBACK,
    NEVER,
    Trainer,
    TrainingConfig,
    calibrate,
    fit_evidence,
    hide,
    noisy_targets,
)
from schemas.labels import Label
from schemas.log import Dialogue, FailurePoint, NluHypothesis, Slot, Turn, TurnAnnotation, decode, validate
from schemas.ontology import Intent, Ontology, Service, infer

LOGS = Path(__file__).parents[1] / "logs" / "dialogues.jsonl"
FAST = TrainingConfig(turns_per_step=16, learning_rate=5e-3, words_learning_rate=2e-3, average_decay=0.9, missing=0.0)


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    return [validate(decode(line, Dialogue)) for line in LOGS.read_bytes().splitlines()]


def _requests(count: int) -> list[Dialogue]:
    """Dialogues of one turn."""
    points = list(FailurePoint)
    return [
        validate(
            Dialogue(
                dialogue_id=str(index),
                turns=[Turn(text="x" * (index % 7 + 1), annotation=TurnAnnotation(failure_point=points[index % 6]))],
            )
        )
        for index in range(count)
    ]


def _source(dialogues: Sequence[Dialogue], passes: float = 1.0, name: str = "demo") -> Source:
    return Source(name, dialogues, infer(dialogues, annotations=True), passes)


def _trainer(folder: Path, sources: Sequence[Source], config: TrainingConfig = FAST) -> Trainer:
    return Trainer(Model.load(folder).float(), sources, config)


def _weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    trainer.finish()
    return trainer.model.state_dict()


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.slow
def test_a_small_batch_is_learnt_by_heart(tiny_model_dir: Path, dialogues: list[Dialogue]) -> None:
    few = dialogues[:4]
    trainer = _trainer(tiny_model_dir, [_source(few, passes=250)])
    assert all(math.isfinite(loss) for losses in trainer.run() for loss in losses.values())
    assert trainer.skipped == 0
    trainer.finish()
    labelled = trainer.model.label(few, trainer.sources[0].ontology)
    for dialogue, labels in zip(few, labelled, strict=True):
        for turn, label in zip(dialogue.turns, labels.turns, strict=True):
            assert turn.annotation is not None
            assert label.failure_point == turn.annotation.failure_point
            assert label.intent == turn.annotation.intent
            # Its vocabulary are letters, of which so small a model may tag one too many.
            assert {(slot.name, slot.value) for slot in label.slots} >= {
                (slot.name, slot.value) for slot in turn.annotation.slots or []
            }
        goals = [turn.annotation.goal_id for turn in dialogue.turns if turn.annotation]
        assert len(labels.goals) == len(set(goals))
        assert dialogue.annotation is not None
        assert labels.success == dialogue.annotation.success


def test_the_same_seed_gives_the_same_weights(tiny_model_dir: Path, dialogues: list[Dialogue]) -> None:
    trained = []
    for seed in (1, 1, 2):
        config = TrainingConfig(turns_per_step=64, seed=seed)
        trainer = _trainer(tiny_model_dir, [_source(dialogues)], config)
        for _ in trainer.run():
            pass
        trained.append(_weights(trainer))
    assert _same(trained[0], trained[1])
    assert not _same(trained[0], trained[2])


def test_a_resumed_run_gives_the_weights_of_an_undisturbed_one(tiny_model_dir: Path, dialogues: list[Dialogue]) -> None:
    sources = [_source(dialogues[:20]), _source(dialogues[20:], name="more")]
    undisturbed, killed = (_trainer(tiny_model_dir, sources) for _ in range(2))
    assert len(undisturbed.steps) > 4
    for _ in undisturbed.run():
        pass
    for _ in killed.run():
        if killed.step == 3:
            break
    file = io.BytesIO()
    torch.save(killed.state(), file)
    file.seek(0)

    resumed = _trainer(tiny_model_dir, sources)
    resumed.restore(torch.load(file, weights_only=True))
    for _ in resumed.run():
        pass
    assert resumed.step == undisturbed.step
    assert _same(_weights(resumed), _weights(undisturbed))


def test_dialogues_of_one_turn_beside_longer_ones_have_finite_gradients(
    tiny_model_dir: Path, dialogues: list[Dialogue]
) -> None:
    trainer = _trainer(tiny_model_dir, [_source(dialogues[:12]), _source(_requests(40), name="requests")])
    losses = list(trainer.run())
    assert trainer.skipped == 0
    assert all(math.isfinite(loss) for step in losses for loss in step.values())
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert all(math.isfinite(turn.defect_probability) for turn in trainer.model.label(dialogues)[0].turns)


def test_a_step_without_a_finite_gradient_changes_nothing_and_is_told(
    tiny_model_dir: Path, dialogues: list[Dialogue]
) -> None:
    trainer = _trainer(tiny_model_dir, [_source(dialogues[:2], passes=20)])
    steps = trainer.run()
    next(steps)
    trainer.model.failure_point.hazards.register_forward_hook(lambda *args: args[2] * torch.inf)
    before = copy.deepcopy(trainer.state())
    next(steps)
    assert trainer.skipped == 1
    for weights in ("model", "average"):
        assert _same(trainer.state()[weights], before[weights]), weights


def _unannotated(count: int) -> list[Dialogue]:
    """Dialogues of one turn, of which those with more words are to be taken for defects."""
    return [
        validate(Dialogue(dialogue_id=str(index), turns=[Turn(text="x" if index % 2 else "no no no no no no no no")]))
        for index in range(count)
    ]


def _probabilities(model: Model, dialogues: Sequence[Dialogue]) -> np.ndarray:
    """(dialogues, 6) of the first turns' failure points."""
    return np.array([list(each.turns[0].failure_point_probabilities.values()) for each in model.label(dialogues)])


def test_noisy_targets_teach_what_is_a_defect(tiny_model_dir: Path) -> None:
    dialogues = _unannotated(40)
    model = Model.load(tiny_model_dir).float()
    targets = noisy_targets(
        model, dialogues, [np.array([0.1 if index % 2 else 0.9]) for index in range(40)], anew=False
    )
    source = _source(dialogues, passes=40)._replace(targets=targets, feedback_weight=1.0)
    fit_evidence(model, [source], FAST, anew=False)
    trainer = Trainer(model, [source], FAST)
    assert all(math.isfinite(losses[FEEDBACK]) for losses in trainer.run())
    trainer.finish()
    correct = _probabilities(model, dialogues)[:, 0]
    assert correct[0::2].max() < 0.4 < 0.6 < correct[1::2].min()


def test_the_components_share_a_noisy_target_as_the_model_had_it(tiny_model_dir: Path) -> None:
    model = Model.load(tiny_model_dir).float()
    dialogues = _unannotated(2)
    targets = np.concatenate(noisy_targets(model, dialogues, [np.array([0.75]), np.array([0.1])], anew=False))
    components = _probabilities(model, dialogues)[:, 1:]
    assert targets[:, 0] == pytest.approx([0.25, 0.9])
    assert targets[:, 1:].sum(axis=1) == pytest.approx([0.75, 0.1])
    assert targets[0, 1:] / 0.75 == pytest.approx(components[0] / components[0].sum())


def test_which_component_failed_stays_open_for_a_model_that_has_learned_no_label(tiny_model_dir: Path) -> None:
    model = Model.load(tiny_model_dir).float()
    dialogues = _unannotated(2)
    (known, none) = noisy_targets(model, dialogues, [np.array([0.75]), np.array([np.nan])], anew=True)
    assert known.tolist() == [[0.25, *[0.0] * (len(POINTS) - 1)]]
    assert np.isnan(none[:, 0]).all()


def test_a_resumed_run_with_feedback_gives_the_weights_of_an_undisturbed_one(tiny_model_dir: Path) -> None:
    dialogues = _unannotated(40)
    targets = noisy_targets(Model.load(tiny_model_dir).float(), dialogues, [np.array([0.7])] * 40, anew=False)
    sources = [_source(dialogues)._replace(targets=targets, feedback_weight=0.5), _source(_requests(20), name="more")]
    undisturbed, killed, resumed = (_trainer(tiny_model_dir, sources) for _ in range(3))
    for _ in undisturbed.run():
        pass
    for _ in killed.run():
        if killed.step == 2:
            break
    resumed.restore(killed.state())
    for _ in resumed.run():
        pass
    assert _same(_weights(resumed), _weights(undisturbed))


def test_a_schedule_shows_every_dialogue_as_often_as_asked(dialogues: list[Dialogue]) -> None:
    steps = schedule([_source(dialogues, passes=1.4), _source(_requests(10), passes=2)], FAST)
    seen = [[index for step in steps if step.source == source for index in step.dialogues] for source in range(2)]
    assert sorted(seen[1]) == sorted([*range(10)] * 2)
    assert set(seen[0]) == set(range(len(dialogues)))
    assert len(seen[0]) == round(1.4 * len(dialogues))
    assert max(sum(len(dialogues[i].turns) for i in step.dialogues) for step in steps if step.source == 0) <= 16


def test_hiding_leaves_the_dialogue_and_its_words_alone(dialogues: list[Dialogue]) -> None:
    before = msgspec.json.encode(dialogues[0])
    hidden = [hide(dialogues[0], random.Random(seed)) for seed in range(20)]
    assert msgspec.json.encode(dialogues[0]) == before
    assert len({msgspec.json.encode(each) for each in hidden}) == 4
    for each in hidden:
        assert [turn.text for turn in each.turns] == [turn.text for turn in dialogues[0].turns]


@pytest.mark.parametrize("precision", [0.3, 0.6])
def test_what_calibration_keeps_has_the_asked_for_precision(
    precision: float, tiny_model_dir: Path, dialogues: list[Dialogue]
) -> None:
    model = Model.load(tiny_model_dir).float()
    source = _source(dialogues)
    report = calibrate(model, [source], precision)
    assert report.keys() == set(Label)
    with torch.inference_mode():
        encoded = model.encode(dialogues, model.encode_ontology(source.ontology))
        for label, labeler in model.labelers.items():
            if label == Label.SLOTS:
                continue
            targets = labeler.targets(encoded)
            probabilities = labeler.probabilities(labeler.scores(encoded))
            given = labeler.choose(probabilities)
            sure = probabilities.gather(1, given[:, None])[:, 0]
            kept = (sure >= labeler.threshold) & (targets != IGNORE)
            assert float(kept.sum()) == pytest.approx(report[label]["coverage"] * report[label]["questions"], abs=1)
            assert not kept.any() or (given == targets)[kept].float().mean() >= precision - 0.02


def test_intents_are_calibrated_on_those_that_are_in_reach(tiny_model_dir: Path) -> None:
    services = (Service("music", intents=(Intent("play"), Intent("pause"))), Service("lamp", intents=(Intent("off"),)))

    def requests(*intents: str) -> Source:
        said = [
            Dialogue(
                dialogue_id=str(index),
                turns=[Turn(text="x" * (index + 1), annotation=TurnAnnotation(intent=intent))],
                services=["music"],
            )
            for index, intent in enumerate(intents)
        ]
        return Source("demo", [validate(each) for each in said], Ontology(services), 1.0)

    model = Model.load(tiny_model_dir).float()
    source = requests(*["play", "pause"] * 10)
    report = calibrate(model, [source], 0.01)[Label.INTENT]
    labels = [each.turns[0].intent for each in model.label(source.dialogues, source.ontology)]
    assert set(labels) <= {"play", "pause"}
    right = [label == ("play", "pause")[index % 2] for index, label in enumerate(labels)]
    assert (report["coverage"], report["precision"]) == (1.0, pytest.approx(np.mean(right)))
    # What is out of reach cannot be right at any temperature.
    more = calibrate(model, [requests(*["play", "pause"] * 10, *["off"] * 5)], 0.01)[Label.INTENT]
    assert more["temperature"] == report["temperature"]
    assert (more["questions"], more["precision"]) == (25, pytest.approx(report["precision"] * 20 / 25))
    calibrate(model, [requests("off")], 0.01)
    assert float(model.intent.temperature) == pytest.approx(report["temperature"])


def _voted_on(count: int) -> tuple[Source, np.ndarray]:
    """Turns that differ, with noisy targets of which every fifth is missing; and the targets, P(defect)."""
    said = [
        validate(Dialogue(dialogue_id=str(index), turns=[Turn(text="x" * (index % 23 + 1))])) for index in range(count)
    ]
    defects = np.random.default_rng(0).random(count) ** 2
    defects[::5] = np.nan
    targets = [np.array([[1 - each, *[0.0] * (len(POINTS) - 1)]]) for each in defects]
    return _source(said)._replace(targets=targets), defects


def test_feedback_calibrates_failure_points_that_nobody_annotated(tiny_model_dir: Path) -> None:
    model = Model.load(tiny_model_dir).float()
    labeler = model.failure_point
    source, defects = _voted_on(300)
    threshold = float(labeler.threshold)
    report = calibrate(model, [source], 0.9)
    temperature, decision = float(labeler.temperature), float(labeler.decision)
    assert report == {Label.FAILURE_POINT: {"temperature": temperature, "decision": decision}}
    assert float(labeler.threshold) == threshold
    known = np.isfinite(defects)

    def probability(temperature: float) -> np.ndarray:
        labeler.temperature.fill_(temperature)
        return np.array([each.turns[0].defect_probability for each in model.label(source.dialogues)])[known]

    def expected_loss(temperature: float) -> float:
        p, q = probability(temperature), defects[known]
        return float(-(q * np.log(p) + (1 - q) * np.log(1 - p)).mean())

    def expected_f1(decision: float) -> float:
        found = probability(temperature) >= decision
        return float(2 * defects[known][found].sum() / (found.sum() + defects[known].sum()))

    others = np.linspace(0.3, 4, 12)
    assert expected_loss(temperature) == pytest.approx(min(map(expected_loss, others)), abs=0.01)
    assert expected_f1(decision) == pytest.approx(max(map(expected_f1, np.linspace(0.1, 0.9, 81))), abs=0.01)


def test_feedback_on_few_turns_or_beside_annotations_decides_nothing(tiny_model_dir: Path) -> None:
    model = Model.load(tiny_model_dir).float()
    few, _ = _voted_on(100)
    assert calibrate(model, [few], 0.9) == {}
    voted, _ = _voted_on(300)
    annotated = _source(_requests(20))
    alone = calibrate(model, [annotated], 0.9)[Label.FAILURE_POINT]
    assert calibrate(model, [annotated._replace(targets=voted.targets[:20]), voted], 0.9)[Label.FAILURE_POINT] == alone


@pytest.mark.parametrize("precision", [0.8, 0.9])
def test_of_the_slots_that_calibration_keeps_so_many_are_right(precision: float, tiny_model_dir: Path) -> None:
    # The network knows nothing: it accepts what was understood, and the surer it was, the surer.
    model = Model.load(tiny_model_dir).float()
    model.slots.tags.bias.data += torch.tensor([100.0, 0.0, 0.0])
    for layer in (0, -1):
        torch.nn.init.zeros_(model.slots.accept[layer].weight)
        torch.nn.init.zeros_(model.slots.accept[layer].bias)
    model.slots.accept[0].weight.data[0, -1] = 1.0
    model.slots.accept[-1].weight.data[1, 0] = 4.0
    requests = []
    for index in range(200):
        share = (0.2, 0.4, 0.6, 0.8)[index % 4]
        heard = [NluHypothesis(slots=[Slot(name="city", value="rome")], score=share), NluHypothesis(score=1 - share)]
        # One in four of the least sure is right, and all of the surest.
        right = index // 4 % 4 <= index % 4
        meant = [Slot(name="city", value="Rome" if right else "Nice")]
        turn = Turn(text="there", nlu=heard, annotation=TurnAnnotation(slots=meant))
        requests.append(validate(Dialogue(dialogue_id=str(index), turns=[turn])))
    report = calibrate(model, [_source(requests)], precision)[Label.SLOTS]
    labels = [each.turns[0] for each in model.label(requests)]
    right = [
        label.slots[0].value == request.turns[0].annotation.slots[0].value.lower()
        for label, request in zip(labels, requests, strict=True)
    ]
    kept = [Label.SLOTS not in label.abstained for label in labels]
    of_kept = [each for each, sure in zip(right, kept, strict=True) if sure]
    assert 0 < len(of_kept) < 200
    assert sum(of_kept) / len(of_kept) == pytest.approx(report["precision"], abs=1e-6)
    assert report["precision"] >= precision
    assert report["questions"] == 200
    assert report["coverage"] == pytest.approx(len(of_kept) / 200)


def test_what_is_rare_and_hard_to_tell_is_found_from_a_lower_probability_on(tiny_model_dir: Path) -> None:
    # Nothing but a constant to go by: that all turns are taken for failures has the best F1.
    model = Model.load(tiny_model_dir).float()
    requests = _requests(30)
    for index, request in enumerate(requests):
        request.turns[0].annotation = TurnAnnotation(failure_point=FailurePoint("correct" if index % 3 else "nlu"))
    labeler = model.failure_point
    torch.nn.init.zeros_(labeler.hazards[-1].weight)
    labeler.hazards[-1].bias.data = torch.tensor([-9.0, -9.0, -0.7, -9.0, -9.0])
    torch.nn.init.zeros_(labeler.evidence.layers[-1].weight)
    labeler.evidence.layers[-1].bias.data = torch.tensor([0.7, -9.0, -9.0, 0.0, -9.0, -9.0])
    report = calibrate(model, [_source(requests)], 0.9)[Label.FAILURE_POINT]
    assert report["decision"] < 0.5
    (labels,) = model.label(requests[:1])
    assert labels.turns[0].failure_point == FailurePoint.NLU
    assert labels.turns[0].failure_point_probabilities["correct"] > 0.5
    assert Label.FAILURE_POINT in labels.turns[0].abstained


def test_equal_confidences_are_kept_together_or_not_at_all(tiny_model_dir: Path) -> None:
    # Nothing but a constant to go by, and four in six are right: 0.9 cannot be had.
    model = Model.load(tiny_model_dir).float()
    torch.nn.init.zeros_(model.failure_point.hazards[-1].weight)
    requests = _requests(30)
    for index, request in enumerate(requests):
        request.turns[0].annotation = TurnAnnotation(failure_point=FailurePoint("asr" if index % 3 else "nlu"))
    model.failure_point.hazards[-1].bias.data = torch.tensor([-9.0, 9.0, 0.0, 0.0, 0.0])
    report = calibrate(model, [_source(requests)], 0.9)
    assert report[Label.FAILURE_POINT]["coverage"] == 0
    assert float(model.failure_point.threshold) == NEVER
    (labels,) = model.label(requests[:1])
    assert Label.FAILURE_POINT in labels.turns[0].abstained


@pytest.mark.parametrize("wrong", [{"turns_per_step": 0}, {"missing": 1.0}, {"precision": 1.0}, {"warmup": -0.1}])
def test_a_config_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TrainingConfig(**wrong)
