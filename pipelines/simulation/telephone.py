"""The telephone: a line whose microphone is open throughout the call.

There is no wake word and no score of one. An endpointer takes for speech what rises over the noise of the line:
breath, a cough, a crackle, the prompt as the line gives it back, people in the room. The recogniser waits for an
answer and makes one of that: a short word of the domain, or nothing. To it a burst of noise is one more word that it
does not know (`BURSTS`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from pipelines.simulation.world import World

OPENINGS = (
    "Hello, you are speaking to your assistant. How can I help?",
    "Welcome. You can ask for music, the weather, your lists, your calendar and more. What would you like?",
    "Hello again. What can I do for you?",
)
MORE = ("Anything else?", "What else can I do for you?", "Can I do anything else?")
"""Said after what is done: the line does not fall silent."""

_PHONEMES = {
    "breath": ("HH S SH F TH", "AH IH"),
    "crackle": ("T K P CH S Z D", "IY IH EH"),
    "cough": ("K HH G", "AH AA ER"),
    "hum": ("M N NG V W Y L", "AH UW OW EH"),
}
"""What a burst of noise is nearest to: consonants, and vowels."""
_SHAPES = ("C", "CV", "CV", "CVC", "CVC", "VC", "V", "CVCV")
_OF_A_SOURCE = 24


def _bursts() -> dict[str, tuple[str, ...]]:
    rng = random.Random(20130401)
    return {
        f"<{source}-{number}>": tuple(
            rng.choice((consonants if kind == "C" else vowels).split()) for kind in rng.choice(_SHAPES)
        )
        for source, (consonants, vowels) in _PHONEMES.items()
        for number in range(_OF_A_SOURCE)
    }


BURSTS = _bursts()
"""Bursts of noise by name, each with the phonemes of ARPABET that it is nearest to."""
_SOURCES = {"breath": 0.25, "crackle": 0.3, "cough": 0.1, "hum": 0.2, "echo": 0.08, "conversation": 0.07}
"""Shares of what the endpointer takes for the caller."""


def sound(world: World, prompt: str, known: Callable[[str], bool], rng: random.Random) -> tuple[str, str, str]:
    """Something that is not the caller: its source, the words in it (none of a noise), and how it sounds.

    `prompt` is what the line may give back, `known` says whether a word has a pronunciation.
    """
    source = rng.choices(list(_SOURCES), list(_SOURCES.values()))[0]
    words: Sequence[str] = ()
    if source == "conversation":
        words = world.background(source, rng).text.split()
    elif source == "echo":
        heard = [word for word in re.findall(r"[a-z']+", prompt.lower()) if known(word)]
        first = rng.randrange(max(len(heard) - 1, 1))
        words = heard[first : first + rng.randint(1, 5)]
    if words:
        return source, " ".join(words), " ".join(words)
    names = [each for each in BURSTS if each.startswith(f"<{source}-")] or list(BURSTS)
    return source, "", " ".join(rng.choices(names, k=rng.choice((1, 1, 1, 1, 2, 2, 3))))
