"""One simulated dialogue: users and the assistant take turns until the user is done or has had enough."""

from __future__ import annotations

import datetime as dt
import hashlib
import random
from dataclasses import dataclass

from pipelines.simulation import action, telephone, wake
from pipelines.simulation.action import FAULTS, Fault
from pipelines.simulation.assistant import Assistant, Luck, Pending, Run
from pipelines.simulation.nlu import NONE, spanned, true_parse
from pipelines.simulation.resolution import logged
from pipelines.simulation.truth import CLEARLY, failure_point, is_right
from pipelines.simulation.users import (
    BACKGROUND,
    NO,
    REQUEST,
    STOP,
    YES,
    Goal,
    User,
    Utterance,
    answer,
    draw_goal,
    draw_user,
    request,
    short_reply,
)
from schemas.log import (
    AsrHypothesis,
    Dialogue,
    DialogueAnnotation,
    DialogueFeedback,
    ExplicitFeedback,
    FailurePoint,
    GoalAnnotation,
    Response,
    Turn,
    TurnAnnotation,
)

_EPOCH = dt.datetime(2025, 1, 6, tzinfo=dt.UTC)
_DAYS = 90
_MAX_TURNS = 30
_SOURCES = ("radio", "television", "conversation", "noise")
_FAR = 1.0
"""How much harder to recognise is what is said across the room to somebody else."""
_LOCALES = ("en-US", "en-US", "en-US", "en-GB", "en-CA", "en-AU")
_DEVICES = ("speaker", "speaker", "speaker", "display", "tv", "car", "phone")
_UNINDEXED = 0.06
"""Largest share of the catalogue that the index of a dialogue lacks, at a knob of 1."""
_PHONE = "phone"
"""The device that has a button: no wake word, no wake score. A call by telephone comes from one, too."""
_NOISE_OF_THE_LINE = 2.0
"""Sounds on the line that are not the caller, relative to those that wake a device."""
_BAND = 1.4
"""How much harder to recognise a telephone makes what is said."""
_OVER_THE_PROMPT = 0.5
"""Share of these that come while the prompt is played."""
_POLITE = 0.5
"""How often a caller speaks over a wrong prompt, relative to somebody before a device."""
_CUT_OFF = 0.5
"""Share of those at which the prompt stops."""
_SPEAKS_ANYWAY = 0.4
"""Share of them after which the caller, who was about to speak, does not wait for the prompt."""


@dataclass(frozen=True)
class Knobs:
    """How hard the world makes it for each stage; 0 makes the stage perfect. `calibration` turns them."""

    wake: float
    """Sounds a user turn that are not meant for the assistant and wake it."""
    asr: float
    """Scale of the difficulty of what is heard."""
    nlu: float
    """Probability of a free phrasing."""
    er: float
    """Probability that the less popular of several namesakes is meant."""
    result: float
    """Probability that a skill fails."""
    telephone: float
    """Share of dialogues that are telephone calls; this one is given, not turned."""


def simulate(assistant: Assistant, knobs: Knobs, seed: int, index: int) -> Dialogue:
    """Dialogue number `index` of the run with `seed`: the same whatever was simulated before."""
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    session = _Session(assistant, knobs, random.Random(int.from_bytes(digest, "big")), f"sim-{seed}-{index:08d}")
    return session.run()


class _Session:
    """The state of a dialogue while it goes on."""

    def __init__(self, assistant: Assistant, knobs: Knobs, rng: random.Random, dialogue_id: str) -> None:
        self.knobs = knobs
        self.rng = rng
        self.dialogue_id = dialogue_id
        self.called = rng.random() < knobs.telephone
        self.assistant = assistant.on_telephone if self.called else assistant
        self.user: User = draw_user(rng)
        self.device = _PHONE if self.called else rng.choice(_DEVICES)
        self.opening = rng.choice(telephone.OPENINGS) if self.called else None
        self.line = rng.gammavariate(0.7, 1 / 0.7)
        self.room = rng.gammavariate(1.2, 0.5)
        self.started = _EPOCH + dt.timedelta(seconds=rng.randrange(_DAYS * 86_400), milliseconds=rng.randrange(1000))
        self.now = self.started
        ids = assistant.entity_ids
        self.missing = frozenset(rng.sample(ids, int(rng.random() * _UNINDEXED * knobs.er * len(ids))))
        self.pending: Pending | None = None
        self.turns: list[Turn] = []
        self.goals: list[Goal] = []
        self.wakes: list[GoalAnnotation] = []

    def run(self) -> Dialogue:
        rng = self.rng
        if self._has_wake_word() and rng.random() < 0.3 * self.knobs.wake:
            # Nobody is there but the radio.
            while not self.turns or rng.random() < 0.25:
                self._background()
            return self._finish()
        count = 1 + (rng.random() < 0.6) + (rng.random() < 0.4) + (rng.random() < 0.25)
        waiting = [self._new_goal() for _ in range(count)]
        while waiting and len(self.turns) < _MAX_TURNS:
            goal = waiting.pop(0)
            if self._pursue(goal, others=bool(waiting)):
                waiting.insert(1, goal)
            elif waiting:
                later = not self.called and rng.random() < 0.5
                self._pass(rng.expovariate(1 / 40.0) if later else rng.uniform(1.0, 6.0))
        return self._finish()

    def _new_goal(self) -> Goal:
        goal = draw_goal(self.assistant.world, self.user, f"g{len(self.goals)}", self.knobs.er, self.rng)
        self.goals.append(goal)
        return goal

    def _pursue(self, goal: Goal, *, others: bool) -> bool:
        """Takes turns for one goal. True: the user puts it off and will come back to it."""
        rng = self.rng
        utterance = self._request(goal)
        difficulty = self._difficulty()
        while len(self.turns) < _MAX_TURNS:
            if rng.random() < self._sounds():
                asked = self.pending
                self._background()
                if utterance.kind != REQUEST and self.pending != asked:
                    # The question is gone that this would have answered.
                    utterance = self._request(goal)
            run = self._turn(utterance, goal, difficulty)
            outcome, right = run.outcome, is_right(run.outcome, utterance, goal)
            difficulty = self._difficulty()
            if utterance.kind == STOP:
                return False
            if right and outcome.kind in (action.EXECUTE, action.REFUSE, action.UNAVAILABLE, action.FALLBACK):
                goal.reached = outcome.kind == action.EXECUTE
                return False
            if right and outcome.kind == action.CONFIRM:
                utterance = short_reply(YES, self.knobs.nlu, rng)
                continue
            if outcome.kind in (action.ELICIT, action.CHOOSE):
                reply = answer(goal, outcome, self.knobs.nlu, rng)
                if reply is not None and outcome.intent == goal.intent and (right or rng.random() < 0.5):
                    if others and rng.random() < 0.06:
                        return True
                    utterance = reply
                    continue
            if outcome.kind == action.CONFIRM and rng.random() < 0.7:
                utterance = short_reply(NO, self.knobs.nlu, rng)
                continue
            if outcome.kind != action.DISMISS and not right and not outcome.visible and rng.random() < 0.5:
                return False
            goal.tries += 1
            if goal.tries >= self.user.patience:
                if rng.random() < 0.4:
                    self._turn(short_reply(STOP, self.knobs.nlu, rng), goal, difficulty)
                return False
            if others and rng.random() < 0.12:
                return True
            utterance, difficulty = self._again(goal, difficulty)
        return False

    def _again(self, goal: Goal, difficulty: float) -> tuple[Utterance, float]:
        """The same goal once more: in the same words, louder or not, or in others."""
        last = goal.last_words
        if last is None or self.rng.random() >= self.user.repeats:
            return self._request(goal), difficulty
        louder = self.rng.random() < 0.5
        return last, difficulty * (0.6 if louder else 1.0)

    def _background(self) -> None:
        """A sound that nobody meant for the assistant, and that woke it, or that the line took for the caller."""
        rng, world = self.rng, self.assistant.world
        if self.called:
            source, text, sound = telephone.sound(world, self._prompt(), self.assistant.recogniser.knows, rng)
            if self.turns and rng.random() < _OVER_THE_PROMPT:
                self._talk_over()
        else:
            source = rng.choice(_SOURCES)
            text = sound = world.background(source, rng).text
            self._pass(rng.expovariate(1 / 20.0))
        utterance = Utterance(BACKGROUND, text, NONE, source=source, sound=sound)
        run = self._turn(utterance, None, self._difficulty() + _FAR if text else self._difficulty_of_noise())
        if self.called and rng.random() < _SPEAKS_ANYWAY:
            self._talk_over()
        if run.outcome.kind in (action.IGNORE, action.AGAIN):
            return
        if run.outcome.kind == action.CONFIRM and rng.random() < 0.6:
            self._turn(short_reply(NO, self.knobs.nlu, rng), None, self._difficulty())
        elif rng.random() < (0.2 if self.called else 0.4):
            self._turn(short_reply(STOP, self.knobs.nlu, rng), None, self._difficulty())

    def _talk_over(self) -> None:
        """Back into the prompt that was just played: a sound comes over it."""
        last = self.turns[-1]
        assert last.ended_at is not None
        last.barge_in = last.barge_in or self.rng.random() < _CUT_OFF
        waited = (self.now - last.ended_at).total_seconds()
        self.now = last.ended_at
        self._pass(min(0.3 + self.rng.expovariate(1 / 0.8), waited))

    def _prompt(self) -> str:
        """What the assistant has said last."""
        said = self.turns[-1].response.text if self.turns and self.turns[-1].response else self.opening
        return said or ""

    def _request(self, goal: Goal) -> Utterance:
        return request(goal, self.user, self.knobs.nlu, self.rng, by_telephone=self.called)

    def _sounds(self) -> float:
        """Probability of a sound before the user speaks."""
        if self.called:
            return _NOISE_OF_THE_LINE * self.line * self.knobs.wake
        return self.knobs.wake if self._has_wake_word() else 0.0

    def _turn(self, utterance: Utterance, goal: Goal | None, difficulty: float) -> Run:
        rng, assistant = self.rng, self.assistant
        pending = self.pending
        asr = self._hear(utterance, difficulty)
        text, heard = asr[0].text, asr[0].score or 0.0
        luck = Luck(self._fault(), self.missing, goal is not None and goal.unavailable, rng.random())
        if goal is not None:
            if utterance.kind == REQUEST:
                goal.said = set()
            goal.said |= utterance.slots.keys()
        run = assistant.respond(
            text,
            heard,
            pending,
            luck,
            nlu=None if self.knobs.nlu else (true_parse(utterance.intent, utterance.slots, text),),
            meant=goal.entities if goal is not None and not self.knobs.er else None,
        )
        point = failure_point(assistant, utterance, goal, run, text, heard, pending, luck)
        self.pending = run.pending
        self._log(utterance, goal, asr, run, point, difficulty)
        if goal is not None and utterance.kind == REQUEST:
            goal.last_request, goal.last_words = len(self.turns) - 1, utterance
        return run

    def _log(
        self,
        utterance: Utterance,
        goal: Goal | None,
        asr: list[AsrHypothesis],
        run: Run,
        point: FailurePoint,
        difficulty: float,
    ) -> None:
        rng = self.rng
        text = asr[0].text
        started = self.now
        self._pass(self._duration(utterance))
        ended = self.now
        response = self._response(run.outcome)
        wrong = point is not FailurePoint.CORRECT
        length = len(response.split()) / 2.8
        interrupts = self.user.interrupts * (_POLITE if self.called else 1.0)
        barge_in = bool(response) and rng.random() < (
            (interrupts if run.outcome.visible else 0.1) if wrong else 0.04 + 0.012 * length
        )
        self._pass(rng.uniform(0.5, 1.4) + length * (rng.uniform(0.2, 0.9) if barge_in else 1.0))
        self.turns.append(
            Turn(
                text=text,
                started_at=started,
                ended_at=ended,
                wake_score=self._wake_score(utterance, difficulty),
                asr=asr,
                nlu=list(run.nlu),
                # A telephone line's log has what was said and done, and no more.
                entities=[] if self.called else logged(run.resolved, run.slots, rng),
                response=Response(
                    text=response, action=_action(run), status=None if self.called else run.outcome.status
                ),
                barge_in=barge_in,
                feedback=self._feedback(wrong),
                annotation=TurnAnnotation(
                    transcript=utterance.text,
                    intent=utterance.intent,
                    slots=[spanned(text, name, value) for name, value in utterance.slots.items()],
                    goal_id=goal.goal_id if goal is not None else self._wake_goal(utterance),
                    failure_point=point,
                    rephrase_of=self._rephrase_of(utterance, goal),
                ),
            )
        )
        if not barge_in:
            self._pass(rng.gammavariate(2.0, 0.7) if self.called else rng.expovariate(1 / 2.5))

    def _duration(self, utterance: Utterance) -> float:
        """Seconds from start to end of an utterance as the assistant has it."""
        if self.called and not utterance.text:
            return 0.15 + len(utterance.sound.split()) * self.rng.expovariate(1 / 0.3)
        words = len(utterance.text.split())
        return (0.2 if self.called else 0.5) + words / self.user.pace * self.rng.uniform(0.9, 1.15)

    def _hear(self, utterance: Utterance, difficulty: float) -> list[AsrHypothesis]:
        if not self.knobs.asr:
            return [AsrHypothesis(text=utterance.text, score=CLEARLY)]
        line = self.assistant.expected(self.pending) if self.called else None
        return self.assistant.recogniser.hear(utterance.sound or utterance.text, difficulty, self.rng, line)

    def _response(self, outcome: action.Outcome) -> str:
        if not self.called:
            return outcome.text
        if outcome.kind == action.AGAIN:
            return outcome.text or self._prompt()
        ended = outcome.kind in (action.EXECUTE, action.REFUSE, action.UNAVAILABLE, action.STOP, action.DISMISS)
        return f"{outcome.text} {self.rng.choice(telephone.MORE)}" if ended else outcome.text

    def _difficulty(self) -> float:
        difficulty = 0.35 * self.room + 0.35 * self.user.accent + self.rng.expovariate(1.6)
        return self.knobs.asr * (_BAND if self.called else 1.0) * difficulty

    def _difficulty_of_noise(self) -> float:
        """Of a burst of noise, which the narrow band of a telephone does not make any harder to tell from words."""
        return self.knobs.asr * (0.35 * self.room + self.rng.expovariate(2.0))

    def _fault(self) -> Fault | None:
        if self.rng.random() >= self.knobs.result:
            return None
        return Fault(self.rng.choices(list(FAULTS), list(FAULTS.values()))[0], self.rng.random())

    def _has_wake_word(self) -> bool:
        return self.device != _PHONE

    def _wake_score(self, utterance: Utterance, difficulty: float) -> float | None:
        if not self._has_wake_word():
            return None
        return round(wake.waking_score(utterance.source, difficulty, self.rng), 4)

    def _wake_goal(self, utterance: Utterance) -> str:
        """A sound that woke the assistant begins a goal that nobody has; what stops it belongs to it."""
        if utterance.kind == BACKGROUND:
            self.wakes.append(GoalAnnotation(goal_id=f"w{len(self.wakes)}", intent=NONE))
        return self.wakes[-1].goal_id

    def _rephrase_of(self, utterance: Utterance, goal: Goal | None) -> int:
        if goal is None or utterance.kind != REQUEST or goal.last_request is None:
            return -1
        return goal.last_request

    def _feedback(self, wrong: bool) -> ExplicitFeedback | None:
        if self.called or self.device not in (_PHONE, "display") or self.rng.random() >= (0.08 if wrong else 0.03):
            return None
        truthful = self.rng.random() < 0.9
        return ExplicitFeedback.NEGATIVE if wrong == truthful else ExplicitFeedback.POSITIVE

    def _pass(self, seconds: float) -> None:
        self.now += dt.timedelta(milliseconds=round(1000 * seconds))

    def _finish(self) -> Dialogue:
        acted = {
            turn.annotation.goal_id
            for turn in self.turns
            if turn.annotation and turn.annotation.failure_point is FailurePoint.WAKE
        }
        goals = [GoalAnnotation(goal_id=goal.goal_id, intent=goal.intent, success=goal.reached) for goal in self.goals]
        for each in self.wakes:
            each.success = each.goal_id not in acted
            goals.append(each)
        present = {turn.annotation.goal_id for turn in self.turns if turn.annotation}
        goals = [goal for goal in goals if goal.goal_id in present]
        success = all(goal.success for goal in goals)
        feedback = None
        if self.rng.random() < 0.06:
            satisfied = success if self.rng.random() < 0.92 else not success
            mean = 0.8 if satisfied else 0.35
            rating = round(min(1.0, max(0.0, self.rng.gauss(mean, 0.15))) * 4) / 4
            feedback = DialogueFeedback(success=satisfied, rating=rating)
        return Dialogue(
            dialogue_id=self.dialogue_id,
            turns=self.turns,
            started_at=self.started,
            locale=self.rng.choice(_LOCALES),
            device=self.device,
            opening=self.opening,
            user_id=self.user.user_id,
            feedback=feedback,
            annotation=DialogueAnnotation(success=success, goals=goals),
        )


def _action(run: Run) -> str:
    outcome = run.outcome
    return outcome.intent if outcome.kind == action.EXECUTE else outcome.kind
