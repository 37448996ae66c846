"""What a user could have without Faultline: the baselines that a model has to beat.

- `asr_threshold`: a turn is a defect where the recogniser's score is low; the threshold has the best F1 on the
  training part. A turn without a score is taken for the least sure.
- `gradient_boosting`: scikit-learn's histogram gradient boosting on what the model sees of a turn besides its
  words (`encoders.features`).
- `live_assistant`: the intent and slots of the assistant's own first NLU hypothesis.
- `majority`: the most frequent answer of the training part.

The trained ones are None where the training part does not annotate what they learn, or has but one answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import precision_recall_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from encoders.features import NUMBERS, turn_features
from labelers.failure_point import POINTS
from labelers.metrics import Booleans, Floats
from pipelines.scoring import FailurePoints, Frame
from schemas.log import Dialogue

Features = npt.NDArray[np.float32]

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
        precision, recall, thresholds = precision_recall_curve(defects, np.nan_to_num(doubt, posinf=_most(doubt)))
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        return cls(float(thresholds[f1[:-1].argmax()]))

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


class GradientBoosting:
    """Failure points out of features."""

    def __init__(self, features: Features, truth: npt.NDArray[np.int64]) -> None:
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
    def fit(cls, features: Features, truth: npt.NDArray[np.int64]) -> GradientBoosting | None:
        """Trained on (N, F) features and (N,) positions in `POINTS`; None where these have fewer than two values."""
        return cls(features, truth) if len(np.unique(truth)) > 1 else None

    def probabilities(self, features: Features) -> Floats:
        """(N, 6) in the order of `POINTS`; 0 for what the training did not have."""
        spread = np.zeros((len(features), len(POINTS)))
        spread[:, self._model.classes_] = self._model.predict_proba(features[:, self._columns])
        return spread


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


def majority_failure_point(asked: FailurePoints) -> int | None:
    """Position in `POINTS`."""
    return Counter(asked.truth.tolist()).most_common(1)[0][0] if len(asked.truth) else None


def majority_intent(dialogues: Sequence[Dialogue]) -> str | None:
    """The intent that is annotated most often."""
    intents = Counter(
        turn.annotation.intent
        for dialogue in dialogues
        for turn in dialogue.turns
        if turn.annotation and turn.annotation.intent is not None
    )
    return intents.most_common(1)[0][0] if intents else None
