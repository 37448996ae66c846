"""The model that joins encoders and labelers: dialogues in, labels out.

- One turn encoder (`encoders.turn`), one dialogue encoder (`encoders.dialogue`), one head a label.
- A folder holds it: `config.json`, `model.safetensors`, `tokenizer.json` and `manifest.json` with the SHA-256 of
  each, which is checked before anything is loaded. Nothing is unpickled. What is loaded is what was saved, bit
  for bit.
- Dialogues are labelled in groups of some thousand turns: within a group what is said alike is encoded once,
  longest first, packed end to end (`encoders.packing`).

Dimensions: N turns, L tokens, T turns of a window, D turn width, E token width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from encoders import narrow
from encoders.batching import WINDOWS, batches
from encoders.devices import placed
from encoders.dialogue import DialogueEncoder, DialogueEncoderConfig, windows
from encoders.features import turn_features
from encoders.kept import KeptVectors
from encoders.memory import give_back
from encoders.packing import packs, ranges
from encoders.text import TokenizedTurn, TurnTokenizer
from encoders.turn import PackedTurns, TurnEncoder, TurnEncoderConfig
from labelers.base import Encoded, EncodedOntology, Labeler, LabelerConfig
from labelers.failure_point import FailurePointLabel, FailurePointLabeler
from labelers.feedback import signals
from labelers.goal_evaluation import GoalEvaluation, SuccessLabel
from labelers.goal_segmentation import GoalSegmentation, GoalTurn
from labelers.intent import IntentLabel, IntentLabeler
from labelers.rephrase import RephraseLabel, RephraseLabeler
from labelers.slots import SlotLabeler, SlotsLabel, proposed
from labelers.understanding import Understanding
from schemas.labels import DialogueLabels, GoalLabels, Label, TurnLabels
from schemas.log import Dialogue, FailurePoint
from schemas.ontology import Intent, Ontology, SlotType, words

CONFIG, WEIGHTS, TOKENIZER, MANIFEST = "config.json", "model.safetensors", "tokenizer.json", "manifest.json"
FORMAT_VERSION = 7
TURN_BUDGET = 512
"""Padded turns of a batch of windows."""
CACHED_PAIRS = 16_384
"""Hypothesised (slot, value) whose vectors are kept from one group to the next."""
GROUP_TURNS = 1_024
"""Turns that are labelled together; a dialogue is never split."""


class ModelError(Exception):
    """A model folder that cannot be used; the message says which part is wrong and what to do."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a model but its weights and its vocabulary."""

    turn: TurnEncoderConfig
    dialogue: DialogueEncoderConfig = field(default_factory=DialogueEncoderConfig)

    def __post_init__(self) -> None:
        if self.turn.width != self.dialogue.width:
            raise ValueError("the turn encoder and the dialogue encoder must have the same width")


class Model(nn.Module):
    """Encoders and labelers. `Model.load` reads one from a folder, `label` uses it."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer, ontology: Ontology) -> None:
        super().__init__()
        self.config = config
        self.ontology = ontology
        """what the model was trained on; used where a log says nothing of its own ontology"""
        self.version = ""
        self.tokenizer = TurnTokenizer(tokenizer)
        self.turn_encoder = TurnEncoder(config.turn)
        self.dialogue_encoder = DialogueEncoder(config.dialogue)
        shared = LabelerConfig(config.turn.width, self.turn_encoder.words.config.hidden_size, config.turn.dropout)
        self.goal_segmentation = GoalSegmentation(shared)
        self.goal_evaluation = GoalEvaluation(shared)
        self.intent = IntentLabeler(shared)
        self.slots = SlotLabeler(shared)
        self.failure_point = FailurePointLabeler(shared, Understanding(self.intent, self.slots))
        self.rephrase = RephraseLabeler(shared)
        self._names: EncodedOntology | None = None
        self._pairs: KeptVectors[tuple[str, str]] = KeptVectors(CACHED_PAIRS)

    @property
    def labelers(self) -> dict[Label, Labeler]:
        """Every labeler by its label."""
        return {child.label: child for child in self.children() if isinstance(child, Labeler)}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.goal_evaluation.temperature.device

    # Labelling

    def label(self, dialogues: Sequence[Dialogue], ontology: Ontology | None = None) -> list[DialogueLabels]:
        """Labels of validated dialogues, in their order.

        `ontology` is what the assistant can be asked; without one it is what the model was trained on.
        """
        labelled: list[DialogueLabels] = []
        with torch.inference_mode(), _evaluating(self):
            # A variable of its own: another thread may label with another ontology.
            names = self._names
            if names is None or names.ontology != (ontology or self.ontology):
                names = self._names = self.encode_ontology(ontology or self.ontology)
            for group in groups(dialogues, GROUP_TURNS):
                labelled += self._label_group(group, names)
                give_back()
        return labelled

    def _label_group(self, dialogues: Sequence[Dialogue], names: EncodedOntology) -> list[DialogueLabels]:
        encoded, shortened = self._encode(dialogues, names)
        # Most of what the encoders used is free now, and no labeler needs as much in one piece.
        give_back()
        goals = self.goal_segmentation.decode(encoded)
        turns_of_goals = [_turns_of_goals(turns) for turns in goals]
        success = self.goal_evaluation.decode(
            encoded,
            [
                [[first + index for index in members] for members in of_dialogue]
                for first, of_dialogue in zip(encoded.first, turns_of_goals, strict=True)
            ],
        )
        together = self.goal_evaluation.decide(
            float(np.prod([goal.probability for goal in of_dialogue])) for of_dialogue in success
        )
        intents = self.intent.decode(encoded)
        slots = self.slots.decode(encoded, intents)
        points = self.failure_point.decode(encoded, slots)
        rephrases = self.rephrase.decode(encoded)
        labels = []
        for position, (first, dialogue) in enumerate(zip(encoded.first, dialogues, strict=True)):
            part = slice(first, first + len(dialogue.turns))
            labels.append(
                _assemble(
                    dialogue,
                    goals[position],
                    turns_of_goals[position],
                    success[position],
                    together[position],
                    intents[part],
                    slots[part],
                    points[part],
                    rephrases[position],
                    shortened[position],
                )
            )
        return labels

    # Encoding

    def encode(self, dialogues: Sequence[Dialogue], names: EncodedOntology) -> Encoded:
        """Encoded dialogues, as the labelers take them; `names` is what they choose intents and slots from."""
        return self._encode(dialogues, names)[0]

    def _encode(self, dialogues: Sequence[Dialogue], names: EncodedOntology) -> tuple[Encoded, list[int]]:
        tokenized = self.tokenizer.dialogues(dialogues)
        turns = [turn for each in tokenized for turn in each]
        features = [turn_features(dialogue) for dialogue in dialogues]
        numbers = placed(np.concatenate([each.numbers for each in features]), self.device)
        categories = placed(np.concatenate([each.categories for each in features]), self.device)
        vectors, user_tokens = self._encode_turns(turns, numbers, categories)
        first = np.cumsum([0, *(len(each) for each in tokenized)]).tolist()[:-1]
        pairs = sorted(
            {
                pair
                for dialogue in dialogues
                for index in range(len(dialogue.turns))
                for pair in proposed(dialogue, index)
            }
        )
        encoded = Encoded(
            dialogues=dialogues,
            first=first,
            states=self.encode_turns_in_dialogues(vectors, [len(each) for each in tokenized], first),
            numbers=numbers,
            categories=categories,
            user_tokens=user_tokens,
            user_starts=np.cumsum([0, *(len(turn.user_offsets) for turn in turns)]),
            user_offsets=[turn.user_offsets for turn in turns],
            ontology=names,
            pairs=self._encode_pairs(pairs),
            pair_texts={pair: row for row, pair in enumerate(pairs)},
        )
        return encoded, [sum(turn.shortened for turn in each) for each in tokenized]

    def _encode_turns(
        self, turns: Sequence[TokenizedTurn], numbers: Tensor, categories: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, D) vectors, and (K, E) states of the users' tokens, one turn after the other."""
        device = self.device
        # The same fields make the same tokens: they are encoded once. Of a shortened request fewer tokens have a place
        # in its text than of one that is as short as what was kept of it.
        rows: dict[tuple[bytes, bytes, int], int] = {}
        keys = [(each.ids.tobytes(), each.segments.tobytes(), len(each.user_offsets)) for each in turns]
        of = np.array([rows.setdefault(key, len(rows)) for key in keys])
        distinct: list[TokenizedTurn] = [turns[0]] * len(rows)
        for row, turn in zip(of.tolist(), turns, strict=True):
            distinct[row] = turn
        counts = np.array([len(turn.user_offsets) for turn in distinct])
        pooled: list[Tensor] = []
        tokens: list[Tensor] = []
        packed_in: list[npt.NDArray[np.int64]] = []
        for indexes, packing in packs([len(turn.ids) for turn in distinct], device):
            packed = PackedTurns.of([distinct[index] for index in indexes], packing, self.tokenizer.pad_id)
            states = self.turn_encoder.tokens(packed)
            pooled.append(self.turn_encoder.pool(states, packed))
            # The user's tokens come after `<s>`.
            tokens.append(states[placed(ranges(packing.starts + 1, counts[indexes]), device)])
            packed_in.append(indexes)
        # Back in the order of the turns.
        order = np.concatenate(packed_in)
        back = np.argsort(order)[of]
        starts = np.cumsum(counts[order]) - counts[order]
        users = placed(ranges(starts[back], counts[of]), device)
        vectors = self.turn_encoder(torch.cat(pooled)[placed(back, device)], numbers, categories)
        return vectors, torch.cat(tokens)[users]

    def encode_turns_in_dialogues(self, vectors: Tensor, lengths: list[int], first: list[int]) -> Tensor:
        """(N, D) turn vectors → (N, D) turn states, window by window."""
        all_windows = [
            (start, window) for start, length in zip(first, lengths, strict=True) for window in windows(length)
        ]
        states: list[Tensor] = []
        places: list[Tensor] = []
        sizes = [window.last - window.first for _, window in all_windows]
        for indexes, rows, length in batches(sizes, WINDOWS, TURN_BUDGET):
            gather = torch.zeros(rows, length, dtype=torch.long)
            mask = torch.zeros(rows, length, dtype=torch.bool)
            keep = torch.zeros(rows, length, dtype=torch.bool)
            for row, index in enumerate(indexes):
                start, window = all_windows[index]
                gather[row, : sizes[index]] = torch.arange(start + window.first, start + window.last)
                mask[row, : sizes[index]] = True
                keep[row, window.keep_first - window.first : window.keep_last - window.first] = True
            gather, mask, keep = (each.to(vectors.device) for each in (gather, mask, keep))
            states.append(self.dialogue_encoder(vectors[gather], mask)[keep])
            places.append(gather[keep])
        return torch.cat(states)[torch.argsort(torch.cat(places))]

    def encode_ontology(self, ontology: Ontology) -> EncodedOntology:
        """The ontology with a vector for every name: where services describe it differently, the mean of these."""
        intents = [entry for service in ontology.services for entry in service.intents]
        slots = [entry for service in ontology.services for entry in service.slots]
        return EncodedOntology.of(
            ontology, self._encode_entries(ontology.intents, intents), self._encode_entries(ontology.slots, slots)
        )

    def _encode_entries(self, named: Sequence[Intent | SlotType], entries: Sequence[Intent | SlotType]) -> Tensor:
        """(names, E)."""
        rows = {entry.name: row for row, entry in enumerate(named)}
        texts = sorted({(rows[entry.name], _described(entry)) for entry in entries})
        vectors = self.encode_texts([text for _, text in texts])
        of = torch.tensor([row for row, _ in texts], dtype=torch.long, device=vectors.device)
        counts = torch.bincount(of, minlength=len(named)).unsqueeze(-1)
        return torch.zeros(len(named), vectors.shape[1], device=vectors.device).index_add(0, of, vectors) / counts

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(texts, E) vectors of single texts, such as names with their descriptions."""
        if not texts:
            return torch.zeros(0, self.turn_encoder.words.config.hidden_size, device=self.device)
        names = self.tokenizer.names(texts)
        vectors, order = [], []
        for indexes, packing in packs([len(name.ids) for name in names], self.device):
            packed = PackedTurns.of([names[index] for index in indexes], packing, self.tokenizer.pad_id)
            vectors.append(self.turn_encoder.names(self.turn_encoder.tokens(packed), packed))
            order.append(indexes)
        return torch.cat(vectors)[placed(np.argsort(np.concatenate(order)), self.device)]

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """(P, E). Many and short: they are read with the words encoder as it is, not trained through."""

        def encode(unknown: list[tuple[str, str]]) -> Tensor:
            return self.encode_texts([f"{words(name)} = {value}" for name, value in unknown])

        # Assistants speak of the same things all day, and a pair's vector is the same whichever it is encoded with.
        with torch.no_grad():
            return self._pairs.look_up(pairs, encode, keep=not self.training)

    def _apply(self, *arguments: Any, **options: Any) -> Model:
        # Whatever moves or converts the weights: what was kept was of the former ones.
        self._forget()
        return cast(Model, super()._apply(*arguments, **options))  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> Model:
        """Turns training on or off. What was kept of the weights as they are is forgotten when it is turned on."""
        if mode:
            self._forget()
        return super().train(mode)

    def _forget(self) -> None:
        self._pairs.clear()
        self._names = None

    # Files

    def round(self) -> None:
        """Rounds the weights to what is stored: `save` then loses nothing more.

        The matrices of the words encoder, three quarters of all weights, to eight bits (`encoders.narrow`), the others
        to bf16.
        """
        for parameter in self.parameters():
            parameter.data = parameter.data.to(torch.bfloat16).to(parameter.dtype)
        for module in self.turn_encoder.words.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.data = narrow.in_eight_bits(module.weight.data)

    def save(self, folder: Path) -> str:
        """Writes the model to `folder` and returns its version, a digest of its files.

        Weights that eight bits or bf16 hold exactly are stored in these; loading them into float32 gives the same
        numbers.
        """
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "format_version": FORMAT_VERSION,
            "model": asdict(self.config),
            "ontology": msgspec.to_builtins(self.ontology),
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        self.tokenizer.tokenizer.save(str(folder / TOKENIZER))
        weights: dict[str, Tensor] = {}
        for name, tensor in self.state_dict().items():
            weights |= narrow.stored(name, tensor.detach().cpu())
        # `save_file` leaves a file that nobody else may read.
        (folder / WEIGHTS).write_bytes(safetensors.torch.save(weights))
        digests = {name: _digest(folder / name) for name in (CONFIG, WEIGHTS, TOKENIZER)}
        (folder / MANIFEST).write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        self.version = _version(digests)
        return self.version

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> Model:
        """The model in `folder`, ready to label on this device of PyTorch's.

        Raises `ModelError` where a part is missing, changed since it was saved, or not of this version.
        """
        folder = Path(folder)
        try:
            digests = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            for name in (CONFIG, WEIGHTS, TOKENIZER):
                if _digest(folder / name) != digests[name]:
                    raise ModelError(
                        f"{folder / name} is not the file that was saved (its SHA-256 differs): copy the model again."
                    )
            stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            if stored["format_version"] != FORMAT_VERSION:
                raise ModelError(
                    f"{folder} is of model format {stored['format_version']}, this Faultline reads format "
                    f"{FORMAT_VERSION}: install the version that saved it, or train again."
                )
            model = cls(
                config_from_json(stored["model"]),
                Tokenizer.from_file(str(folder / TOKENIZER)),
                msgspec.convert(stored["ontology"], type=Ontology),
            )
            model.load_state_dict(narrow.restored(safetensors.torch.load_file(folder / WEIGHTS)))
        except FileNotFoundError as error:
            raise ModelError(
                f"The model folder {folder} lacks {Path(error.filename or folder).name}: copy the whole folder again."
            ) from None
        except ModelError:
            raise
        # tokenizers raises bare `Exception`.
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".:")
            raise ModelError(f"The model folder {folder} cannot be read ({why}): copy it again.") from error
        model.version = _version(digests)
        model.eval()
        model.to(device)
        model.prepare()
        return model

    def prepare(self) -> None:
        """Puts the words encoder into the arithmetic that is fast here: bf16 where the CPU has it, else float32."""
        words = self.turn_encoder
        dtype = torch.bfloat16 if self.device.type == "cuda" or _cpu_has_bf16() else torch.float32
        words.words.to(dtype)


def config_from_json(stored: dict[str, Any]) -> ModelConfig:
    """The inverse of `dataclasses.asdict` for `ModelConfig`."""
    return ModelConfig(
        turn=TurnEncoderConfig(**stored["turn"]),
        dialogue=DialogueEncoderConfig(**stored["dialogue"]),
    )


def groups(dialogues: Sequence[Dialogue], turns: int) -> Iterator[list[Dialogue]]:
    """Consecutive dialogues in groups of about that many turns, at least one dialogue each."""
    group: list[Dialogue] = []
    size = 0
    for dialogue in dialogues:
        if group and size + len(dialogue.turns) > turns:
            yield group
            group, size = [], 0
        group.append(dialogue)
        size += len(dialogue.turns)
    if group:
        yield group


def _assemble(
    dialogue: Dialogue,
    goals: list[GoalTurn],
    turns_of_goals: list[list[int]],
    success: list[SuccessLabel],
    together: SuccessLabel,
    intents: list[IntentLabel],
    slots: list[SlotsLabel],
    points: list[FailurePointLabel],
    rephrases: list[RephraseLabel],
    shortened: int,
) -> DialogueLabels:
    decided = [point.point for point in points]
    turns = []
    for index, (goal, intent, slot, point, rephrase) in enumerate(
        zip(goals, intents, slots, points, rephrases, strict=True)
    ):
        abstained = {
            Label.GOAL: goal.abstained,
            Label.SUCCESS: success[goal.goal].abstained,
            Label.INTENT: intent.abstained,
            Label.SLOTS: slot.abstained,
            Label.FAILURE_POINT: point.abstained,
            Label.REPHRASE: rephrase.abstained,
        }
        turns.append(
            TurnLabels(
                dialogue_id=dialogue.dialogue_id,
                turn_index=index,
                goal_id=_goal_id(dialogue, goal.goal),
                is_goal_start=goal.is_start,
                intent=intent.name,
                intent_confidence=intent.confidence,
                slots=slot.slots,
                failure_point=point.point,
                failure_point_confidence=point.probabilities[point.point],
                failure_point_probabilities=point.probabilities,
                # A sum, not 1 - P(correct), which would lose the small ones.
                defect_probability=sum(p for name, p in point.probabilities.items() if name != FailurePoint.CORRECT),
                rephrase_of=rephrase.rephrase_of,
                feedback_signals=signals(dialogue, index, rephrase_of=rephrase.rephrase_of, failure_points=decided),
                abstained=[label for label, abstains in abstained.items() if abstains],
            )
        )
    lasting = _lasting_failures(decided, rephrases)
    goal_labels = [
        _goal(dialogue, number, members, label, intents, decided, lasting)
        for number, (members, label) in enumerate(zip(turns_of_goals, success, strict=True))
    ]
    return DialogueLabels(
        dialogue_id=dialogue.dialogue_id,
        turn_count=len(turns),
        goal_count=len(goal_labels),
        defect_count=sum(point != FailurePoint.CORRECT for point in decided),
        success=together.success,
        success_confidence=together.confidence,
        turns=turns,
        goals=goal_labels,
        shortened_turns=shortened,
    )


def _turns_of_goals(turns: Sequence[GoalTurn]) -> list[list[int]]:
    """For each goal of a dialogue the indexes of its turns."""
    members: list[list[int]] = [[] for _ in range(1 + max(turn.goal for turn in turns))]
    for index, turn in enumerate(turns):
        members[turn.goal].append(index)
    return members


def _lasting_failures(points: Sequence[FailurePoint], rephrases: Sequence[RephraseLabel]) -> set[int]:
    """The turns of a dialogue that failed for good: asking again did not work, be it at the second or third attempt.

    The turn that asks again can be in another goal: what opens a goal is decided by itself.
    """
    recovered: set[int | None] = set()
    for index in reversed(range(len(points))):
        if points[index] == FailurePoint.CORRECT or index in recovered:
            recovered.add(rephrases[index].rephrase_of)
    return {index for index, point in enumerate(points) if point != FailurePoint.CORRECT and index not in recovered}


def _goal(
    dialogue: Dialogue,
    number: int,
    members: list[int],
    success: SuccessLabel,
    intents: list[IntentLabel],
    points: list[FailurePoint],
    lasting: set[int],
) -> GoalLabels:
    failed = next((index for index in members if index in lasting), None)
    return GoalLabels(
        dialogue_id=dialogue.dialogue_id,
        goal_id=_goal_id(dialogue, number),
        turn_indexes=members,
        intent=intents[members[0]].name,
        success=success.success,
        success_confidence=success.confidence,
        failure_point=FailurePoint.CORRECT if failed is None else points[failed],
        failure_turn=failed,
    )


def _goal_id(dialogue: Dialogue, number: int) -> str:
    return f"{dialogue.dialogue_id}#{number}"


def _described(entry: Intent | SlotType) -> str:
    return f"{words(entry.name)}: {entry.description}" if entry.description else words(entry.name)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(digests: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:12]


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
