"""Action: what the assistant does and says once it has understood, and what goes wrong with that.

A skill can do something else than it was asked for, say that it did what it did not, break down, or refuse what
it can do. Requests that no skill serves are refused honestly; so are those for things that are out of reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pipelines.simulation.catalogue import Entity

EXECUTE, ELICIT, CONFIRM, CHOOSE = "execute", "elicit", "confirm", "choose"
REFUSE, IGNORE, AGAIN, FALLBACK, STOP, DISMISS, NOT_FOUND, UNAVAILABLE = (
    "refuse",
    "ignore",
    "again",
    "fallback",
    "stop",
    "dismiss",
    "not_found",
    "unavailable",
)


class Outcome(NamedTuple):
    """What came of a turn."""

    kind: str
    intent: str
    args: Mapping[str, str]
    """Slot → id of the entity, or the value's canonical form."""
    text: str
    status: str
    done: bool = True
    """Whether what the skill did is what it was asked to do."""
    asked: str = ""
    """The slot asked for."""
    visible: bool = True
    """Whether the user can tell from the response that it went wrong."""


class Fault(NamedTuple):
    """How a skill fails in a turn, if it gets to do anything."""

    kind: str
    pick: float
    """0 to 1: which of several other things it does."""


WRONG, SILENT, BROKEN, REFUSING = "wrong", "silent", "broken", "refusing"
FAULTS = {WRONG: 0.4, SILENT: 0.2, BROKEN: 0.25, REFUSING: 0.15}
"""Kinds of fault and their shares."""

_DONE: dict[str, tuple[str, ...]] = {
    "play_music": ("Playing {what}.", "Here is {what}.", "Now playing {what}."),
    "next_song": ("Skipping.", "Next song."),
    "pause_music": ("Paused.", "Okay, pausing."),
    "volume_up": ("Volume up.", "Okay, louder."),
    "volume_down": ("Volume down.", "Okay, quieter."),
    "set_volume": ("Volume set to {what}.", "Volume at {what}."),
    "what_is_playing": ("This is Golden Hour by Clara Moon.", "You are listening to the evening mix."),
    "play_media": ("Starting {what}.", "Here is {what}.", "Resuming {what}."),
    "light_on": ("Okay, {what} on.", "Turning on the {what}."),
    "light_off": ("Okay, {what} off.", "Turning off the {what}."),
    "set_color": ("The {what} now.", "Okay, {what}."),
    "set_temperature": ("The temperature is set to {what} degrees.", "Heating to {what}."),
    "lock_door": ("The doors are locked.", "All doors locked."),
    "set_timer": ("Timer set for {what}.", "{what}, starting now."),
    "cancel_timer": ("Timer canceled.", "The timer is off."),
    "check_timer": ("You have four minutes left.", "About two minutes to go."),
    "set_alarm": ("Alarm set for {what}.", "I will wake you at {what}."),
    "cancel_alarm": ("Your alarm is off.", "Alarm canceled."),
    "get_weather": (
        "Here is the weather{for_what}: cloudy, with a high of eighteen degrees and some rain in the evening.",
        "The forecast{for_what} is mostly sunny with highs around twenty one.",
    ),
    "add_to_list": ("I added {what} to your shopping list.", "{what} is on the list."),
    "order_product": ("Okay, I ordered {what}. It arrives tomorrow.", "Order placed for {what}."),
    "call": ("Calling {what}.", "Okay, calling {what} now."),
    "send_message": ("Message sent to {contact}.", "Okay, I sent that to {contact}."),
    "create_event": ("I added {what} to your calendar.", "Okay, scheduled: {what}."),
    "query_calendar": (
        "You have two events{for_what}: a team meeting at ten and lunch at one.",
        "There is nothing on your calendar{for_what}.",
    ),
    "directions": ("Starting directions to {what}.", "{what} is twelve minutes away. Let's go."),
    "traffic": (
        "Traffic{for_what} is light. It takes about twenty minutes.",
        "There is a slow stretch{for_what}, expect ten extra minutes.",
    ),
    "ask_fact": ("{what}.", "That is {what}."),
    "define_word": ("{what} has three meanings. The first is the common one.", "Here is the definition of {what}."),
    "tell_joke": (
        "Why did the scarecrow win a prize? He was outstanding in his field.",
        "What do you call a bear without teeth? A gummy bear.",
    ),
    "play_news": ("Here is the news{for_what}.", "From the newsroom, here are the headlines{for_what}."),
}
_QUESTIONS = {
    "duration": "For how long?",
    "time": "For what time?",
    "item": "What would you like?",
    "contact": "Who do you want to reach?",
    "message": "What is the message?",
    "date": "For which day?",
    "event": "What is the event?",
    "title": "What would you like to watch?",
    "device": "Which device?",
    "color": "Which color?",
    "temperature": "To how many degrees?",
    "level": "To what level?",
    "place": "Where to?",
    "fact": "What would you like to know?",
    "word": "Which word?",
}
_VERBS = {
    "play_music": "play",
    "next_song": "skip this song",
    "pause_music": "pause",
    "volume_up": "turn it up",
    "volume_down": "turn it down",
    "set_volume": "set the volume to",
    "what_is_playing": "say what is playing",
    "play_media": "play",
    "light_on": "turn on the",
    "light_off": "turn off the",
    "set_color": "change the color of the",
    "set_temperature": "set the temperature to",
    "lock_door": "lock the doors",
    "set_timer": "set a timer for",
    "cancel_timer": "cancel the timer",
    "check_timer": "check the timer",
    "set_alarm": "set an alarm for",
    "cancel_alarm": "cancel your alarm",
    "get_weather": "check the weather",
    "add_to_list": "add to your list:",
    "order_product": "order",
    "send_message": "message",
    "create_event": "add to your calendar:",
    "query_calendar": "check your calendar",
    "directions": "navigate to",
    "traffic": "check the traffic",
    "ask_fact": "look up",
    "define_word": "define",
    "tell_joke": "tell a joke",
    "play_news": "play the news",
}
_ABOUT = {"date": "{}", "city": "in {}", "place": "to {}", "subject": "about {}"}
_LOST = (
    "Sorry, I didn't get that.",
    "Sorry, I'm not sure about that.",
    "I didn't understand. Could you say that again?",
)
_AGAIN = ("", "", "", "Sorry, I didn't get that.", "I'm sorry, could you say that again?")
"""Of a telephone; where it says nothing, the last prompt is played again."""
_OTHER_INTENT = {
    "light_on": "light_off",
    "light_off": "light_on",
    "volume_up": "volume_down",
    "volume_down": "volume_up",
    "next_song": "pause_music",
    "pause_music": "next_song",
    "set_timer": "set_alarm",
    "set_alarm": "set_timer",
    "cancel_timer": "cancel_alarm",
    "cancel_alarm": "cancel_timer",
    "add_to_list": "order_product",
    "call": "send_message",
    "check_timer": "set_timer",
}
_OTHER_VALUE = {
    "duration": ("ten minutes", "one hour", "thirty seconds"),
    "time": ("seven a m", "seven p m", "midnight"),
    "date": ("today", "tomorrow", "on monday"),
    "level": ("three", "eight"),
    "temperature": ("seventeen", "twenty five"),
    "color": ("blue", "white"),
}


def lost(pick: float) -> Outcome:
    """Nothing was understood."""
    return Outcome(FALLBACK, FALLBACK, {}, _LOST[int(pick * len(_LOST))], "failure", done=False)


def again(pick: float) -> Outcome:
    """Nothing was understood, and nothing is done but to say so, or to play the last prompt again."""
    return Outcome(AGAIN, AGAIN, {}, _AGAIN[int(pick * len(_AGAIN))], "question", done=False)


def refuse() -> Outcome:
    return Outcome(REFUSE, "unsupported", {}, "Sorry, I can't do that yet.", "unsupported")


def ask_for(intent: str, slot: str) -> Outcome:
    return Outcome(ELICIT, intent, {}, _QUESTIONS[slot], "question", asked=slot)


def ask_whether(intent: str, args: Mapping[str, str], names: Mapping[str, str]) -> Outcome:
    what = " ".join(names.values())
    verb = _VERBS.get(intent, intent.replace("_", " "))
    return Outcome(CONFIRM, intent, args, f"Did you want me to {f'{verb} {what}'.strip()}?", "question")


def ask_which(intent: str, slot: str, first: Entity, second: Entity) -> Outcome:
    args = {first.entity_id: first.full, second.entity_id: second.full}
    return Outcome(CHOOSE, intent, args, f"Do you mean {first.name} or {second.name}?", "question", asked=slot)


def not_found(intent: str, value: str) -> Outcome:
    return Outcome(NOT_FOUND, intent, {}, f"I couldn't find {value}.", "failure", done=False)


def unavailable(intent: str, args: Mapping[str, str], names: Mapping[str, str]) -> Outcome:
    what = next(iter(names.values()), "that")
    return Outcome(UNAVAILABLE, intent, args, f"Sorry, {what} isn't available right now.", "failure")


def execute(
    intent: str,
    args: Mapping[str, str],
    names: Mapping[str, str],
    entities: Mapping[str, Entity],
    others: Mapping[str, Entity],
    fault: Fault | None,
    pick: float,
) -> Outcome:
    """Does it, or what the fault makes of it.

    `names` has what to call each argument, `entities` what was resolved, `others` what else it might have been.
    """
    if fault is None:
        return Outcome(EXECUTE, intent, args, _said(intent, names, entities, pick), "success")
    if fault.kind == BROKEN:
        text = (
            "Sorry, something went wrong. Please try again later."
            if fault.pick < 0.6
            else "I'm having trouble with that right now."
        )
        return Outcome(EXECUTE, intent, args, text, "failure", done=False)
    if fault.kind == REFUSING:
        return refuse()._replace(done=False)
    if fault.kind == SILENT:
        return Outcome(
            EXECUTE, intent, args, _said(intent, names, entities, pick), "success", done=False, visible=False
        )
    slot = next((each for each in names if each in others or each in _OTHER_VALUE), None)
    if slot is not None and fault.pick < 0.6:
        entities = {**entities, slot: others[slot]} if slot in others else entities
        values = _OTHER_VALUE.get(slot, ())
        wrong = others[slot].name if slot in others else next(each for each in values if each != names[slot])
        return Outcome(
            EXECUTE, intent, args, _said(intent, {**names, slot: wrong}, entities, pick), "success", done=False
        )
    intent = _OTHER_INTENT.get(intent, intent)
    visible = fault.pick < 0.8
    return Outcome(EXECUTE, intent, args, _said(intent, names, entities, pick), "success", done=False, visible=visible)


def _said(intent: str, names: Mapping[str, str], entities: Mapping[str, Entity], pick: float) -> str:
    choices = _DONE[intent]
    what = entities["fact"].says if "fact" in entities else " ".join(names.values()) or "your favorites"
    about = "".join(f" {_ABOUT[slot].format(name)}" for slot, name in names.items() if slot in _ABOUT)
    text = choices[int(pick * len(choices))].format(**{**names, "what": what, "for_what": about})
    return text[0].upper() + text[1:]
