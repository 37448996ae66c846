"""What a user could have without Faultline: the baselines that a model has to beat.

- `asr_threshold`: a turn is a defect where the recogniser's score is low; the threshold has the best F1 on the
  training part. A turn without a score is taken for the least sure.
- `gradient_boosting`: scikit-learn's histogram gradient boosting on what the model sees of a turn besides its
  words (`encoders.features`). It decides as the model does (`labelers.base.choose`), at the defect probability that has
  the best F1 where each fifth of the training part is scored by a boosting of the others.
- `live_assistant`: the intent and slots of the assistant's own first NLU hypothesis.
- `majority`: the most frequent answer of the training part.

The trained ones are None where the training part does not annotate what they learn, or has but one answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import precision_recall_curve
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from encoders.features import NUMBERS, turn_features
from labelers.base import choose
from labelers.failure_point import POINTS, FailurePointLabeler
from labelers.metrics import Booleans, Floats, Integers
from pipelines.scoring import CORRECT, FailurePoints, Frame
from schemas.log import Dialogue

Features = npt.NDArray[np.float32]

_FOLDS = 5
_LARGEST_CATEGORIES = 250
"""Of each field; the rest is one more. The boosting takes at most 255."""


def features(dialogues: Sequence[Dialogue], asked: FailurePoints) -> Features:
    """(N, F) numbers, then categories, of the annotated turns; NaN and 0 where missing."""
    rows: list[list[Features]] = [list(np.hstack(turn_features(dialogue))) for dialogue in dialogues]
    return np.array(asked.pick(rows), dtype=np.float32)


class AsrThreshold:
    """Finds defects by the recogniser's score alone."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    @classmethod
    def fit(cls, features: Features, defects: Booleans) -> AsrThreshold | None:
        """The threshold with the best F1 on these turns; None where no turn has a score, or none is a defect."""
        doubt = cls.doubt(features)
        if not np.isfinite(doubt).any() or not defects.any():
            return None
        return cls(_best_threshold(defects, np.nan_to_num(doubt, posinf=_most(doubt))))

    @staticmethod
    def doubt(features: Features) -> Floats:
        """(N,) the higher, the likelier a defect; infinite without a score."""
        score = features[:, NUMBERS.index("asr_score")].astype(np.float64)
        return np.where(np.isnan(score), np.inf, -score)

    def find(self, features: Features) -> Booleans:
        """(N,) whether a turn is taken for a defect."""
        return self.doubt(features) >= self._threshold


def _most(doubt: Floats) -> float:
    """A finite number above all finite ones."""
    return float(doubt[np.isfinite(doubt)].max()) + 1.0


def _best_threshold(truth: Booleans, score: Floats) -> float:
    """Of a score, with the best F1 of taking it for true from there on."""
    precision, recall, thresholds = precision_recall_curve(truth, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return float(thresholds[f1[:-1].argmax()])


class GradientBoosting:
    """Failure points out of features."""

    def __init__(self, features: Features, truth: Integers, decision: float = 0.5) -> None:
        self._decision = decision
        # The boosting does not take a column without two values.
        self._columns = [column for column in range(features.shape[1]) if _varies(features[:, column])]
        numbers = sum(column < len(NUMBERS) for column in self._columns)
        categories = list(range(numbers, len(self._columns)))
        encoder = OrdinalEncoder(
            max_categories=_LARGEST_CATEGORIES, handle_unknown="use_encoded_value", unknown_value=np.nan
        )
        self._model = make_pipeline(
            make_column_transformer((encoder, categories), remainder="passthrough"),
            HistGradientBoostingClassifier(
                learning_rate=0.05,
                max_iter=150,
                # The transformer puts the categories first.
                categorical_features=list(range(len(categories))),
                early_stopping=False,
                random_state=1,
            ),
        )
        self._model.fit(features[:, self._columns], truth)

    @classmethod
    def fit(cls, features: Features, truth: Integers) -> GradientBoosting | None:
        """Trained on (N, F) features and (N,) positions in `POINTS`; None where these have fewer than two values."""
        if len(np.unique(truth)) < 2:
            return None
        doubt = np.full(len(truth), 0.5)
        for learned, left in KFold(min(_FOLDS, len(truth)), shuffle=True, random_state=1).split(truth):
            if len(np.unique(truth[learned])) > 1:
                doubt[left] = 1 - cls(features[learned], truth[learned]).probabilities(features[left])[:, CORRECT]
        return cls(features, truth, _best_threshold(truth != CORRECT, doubt))

    def probabilities(self, features: Features) -> Floats:
        """(N, 6) in the order of `POINTS`; 0 for what the training did not have."""
        spread = np.zeros((len(features), len(POINTS)))
        spread[:, self._model.classes_] = self._model.predict_proba(features[:, self._columns])
        return spread

    def decide(self, probabilities: Floats) -> Integers:
        """(N, 6) → (N,) positions in `POINTS`."""
        decided: Integers = choose(
            torch.from_numpy(probabilities), FailurePointLabeler.positive, self._decision
        ).numpy()
        return decided


def _varies(column: Features) -> bool:
    known = column[~np.isnan(column)]
    return len(known) > 0 and bool((known != known[0]).any())


def live_frames(dialogues: Sequence[Dialogue]) -> list[list[Frame]] | None:
    """The assistant's own first hypothesis of every turn; None where the log has no hypothesis."""
    if not any(turn.nlu for dialogue in dialogues for turn in dialogue.turns):
        return None
    return [
        [Frame(turn.nlu[0].intent, turn.nlu[0].slots) if turn.nlu else Frame(None, []) for turn in dialogue.turns]
        for dialogue in dialogues
    ]


def majority_intent(dialogues: Sequence[Dialogue]) -> str | None:
    """The intent that is annotated most often."""
    intents = Counter(
        turn.annotation.intent
        for dialogue in dialogues
        for turn in dialogue.turns
        if turn.annotation and turn.annotation.intent is not None
    )
    return intents.most_common(1)[0][0] if intents else None
