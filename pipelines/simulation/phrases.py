"""What people say: the phrasings of every intent, and speech that is meant for nobody.

A phrasing names its slots in braces. *Plain* ones are what the assistant's makers thought of and trained it on;
*free* ones are what people say besides, which the assistant has never seen.
"""

from __future__ import annotations

from typing import NamedTuple


class Intent(NamedTuple):
    """Something that a user can want."""

    domain: str
    required: tuple[str, ...]
    """Slots without which the assistant asks back."""
    plain: tuple[str, ...]
    free: tuple[str, ...]
    rate: float = 1.0
    """How often it is wanted, relative to others."""


def _intent(domain: str, required: str, plain: str, free: str, rate: float = 1.0) -> Intent:
    def cut(text: str) -> tuple[str, ...]:
        return tuple(each.strip() for each in text.replace("\n", "|").split("|") if each.strip())

    return Intent(domain, tuple(required.split()), cut(plain), cut(free), rate)


INTENTS: dict[str, Intent] = {
    "play_music": _intent(
        "music",
        "",
        """play {song}|play {song} by {artist}|play the song {song}|play {artist}|play songs by {artist}
        play some {genre}|play {genre} music|play my {playlist} playlist|start the playlist {playlist}
        i want to hear {song} by {artist}
        listen to {artist}|put on {genre} music|play music by {artist}|play the song {song} by {artist}""",
        """put on {song}|throw on some {artist}|i am in the mood for {genre}|can we have {song}|how about some {genre}
        let me hear that {artist} track {song}|give me {playlist}|that song {song}|something by {artist}
        get the {playlist} going|you know the one called {song} by {artist}|start {artist}|blast {song}""",
        3.0,
    ),
    "next_song": _intent(
        "music", "", "next song|skip this song|next track|skip", "i hate this one|not this one again|another one"
    ),
    "pause_music": _intent(
        "music",
        "",
        "pause|pause the music|stop the music",
        "hold on a second|be quiet for a moment|turn that off please",
        0.8,
    ),
    "volume_up": _intent(
        "music",
        "",
        "turn it up|volume up|louder|turn up the volume",
        "i can barely hear this|crank it up|a bit more sound",
        1.2,
    ),
    "volume_down": _intent(
        "music",
        "",
        "turn it down|volume down|quieter|lower the volume",
        "this is way too loud|not so loud|easy on the volume",
    ),
    "set_volume": _intent(
        "music",
        "level",
        "set the volume to {level}|volume {level}|change the volume to {level}|change the volume",
        "make it a {level}|go to {level} on the sound",
        0.8,
    ),
    "what_is_playing": _intent(
        "music", "", "what song is this|what is playing|who sings this", "what are we listening to|who is this by", 0.5
    ),
    "play_media": _intent(
        "video",
        "title",
        """play {title}|play the {media_type} {title}|start {title}|start the {media_type} {title}|open {title}
        i want {title}|play {title} the {media_type}|continue {title}|resume the {media_type} {title}
        i want to watch something""",
        """put {title} on|we would like {title} tonight|go on with {title}|is {title} on there put it on
        carry on with the {media_type} of {title}|let us have {title}|show me {title}
        i feel like {title} the {media_type}""",
        2.4,
    ),
    "light_on": _intent(
        "home",
        "device",
        "turn on the {device}|turn the {device} on|switch on the {device}|turn on the {device} in the {room}|"
        "{device} on|turn something on",
        "i need some light from the {device}|can i get the {device} going|power up the {device}|"
        "wake up the {device} in the {room}",
        2.0,
    ),
    "light_off": _intent(
        "home",
        "device",
        "turn off the {device}|turn the {device} off|switch off the {device}|"
        "turn off the {device} in the {room}|{device} off|turn something off",
        "kill the {device}|we do not need the {device} any more|shut down the {device}|"
        "the {device} in the {room} can go off",
        1.8,
    ),
    "set_color": _intent(
        "home",
        "device color",
        "set the {device} to {color}|make the {device} {color}|change the {device} to {color}|change a color",
        "i want {color} from the {device}|{color} for the {device} would be nice",
        0.7,
    ),
    "set_temperature": _intent(
        "home",
        "temperature",
        "set the temperature to {temperature} degrees|set the thermostat to {temperature}|"
        "heat the house to {temperature} degrees|make it {temperature} degrees|change the temperature",
        "it should be {temperature} in here|i am cold go to {temperature}|warm it up to {temperature}",
    ),
    "lock_door": _intent(
        "home",
        "",
        "lock the doors|lock the house|lock up",
        "did i leave it open lock it|make sure we are safe tonight",
        0.4,
    ),
    "set_timer": _intent(
        "timer",
        "duration",
        "set a timer for {duration}|start a timer for {duration}|timer for {duration}|set a timer",
        "count down {duration}|give me {duration}|tell me when {duration} are over|"
        "i have {duration} for the eggs|ping me in {duration}",
        2.4,
    ),
    "cancel_timer": _intent(
        "timer",
        "",
        "cancel the timer|stop the timer|delete my timer",
        "forget the timer|i do not need that timer any more",
        0.7,
    ),
    "check_timer": _intent(
        "timer",
        "",
        "how much time is left|check the timer|how long on the timer",
        "is it nearly done|how are we doing on time",
        0.7,
    ),
    "set_alarm": _intent(
        "alarm",
        "time",
        "set an alarm for {time}|wake me up at {time}|set an alarm for {time} {date}|alarm at {time}|"
        "wake me at {time} {date}|set an alarm",
        "i have to be up by {time}|get me out of bed at {time}|do not let me sleep past {time}|"
        "i need to be awake at {time} {date}",
        1.8,
    ),
    "cancel_alarm": _intent(
        "alarm", "", "cancel my alarm|turn off the alarm|delete the alarm", "i can sleep in|no alarm tomorrow", 0.6
    ),
    "get_weather": _intent(
        "weather",
        "",
        """what is the weather|what is the weather in {city}|weather {date}|what is the weather {date} in {city}
        will it rain {date}
        what is the forecast {date}|how is the weather in {city} {date}""",
        "do i need a coat {date}|is it nice out|umbrella {date}|should i take a jacket to {city}|"
        "is it freezing in {city}",
        2.0,
    ),
    "add_to_list": _intent(
        "shopping",
        "item",
        "add {item} to my shopping list|put {item} on the list|add {item} to the list|add {item}|"
        "add something to my shopping list",
        "we are out of {item}|i need to buy {item}|we need more {item}|do not let me forget {item}",
        1.6,
    ),
    "order_product": _intent(
        "shopping",
        "item",
        "order {item}|buy {item}|order some {item}|i want to order {item}|i want to order something",
        "get me some more {item}|send us {item}|stock up on {item}",
        0.8,
    ),
    "call": _intent(
        "communication",
        "contact",
        "call {contact}|phone {contact}|make a call to {contact}|give {contact} a call|call {contact} on the phone|"
        "make a call",
        "ring {contact}|get {contact} on the line|i need to talk to {contact}|try {contact} for me",
        1.6,
    ),
    "send_message": _intent(
        "communication",
        "contact message",
        "send a message to {contact} saying {message}|text {contact} {message}|tell {contact} {message}|"
        "message {contact} {message}|text {contact}|send a message",
        "let {contact} know {message}|write {contact} that {message}|drop {contact} a line {message}",
        1.2,
    ),
    "create_event": _intent(
        "calendar",
        "event date",
        "add {event} to my calendar {date}|schedule {event} {date} at {time}|create an event {event} {date}|"
        "put {event} on my calendar {date}|schedule {event}|add something to my calendar",
        "i have {event} {date} write that down|block {time} {date} for {event}|pencil in {event} {date}",
        1.2,
    ),
    "query_calendar": _intent(
        "calendar",
        "",
        "what is on my calendar|what is on my calendar {date}|what do i have {date}|show my schedule {date}",
        "am i busy {date}|anything on {date}|what is the plan {date}",
        1.0,
    ),
    "directions": _intent(
        "navigation",
        "place",
        "directions to {place}|navigate to {place}|take me to {place}|how do i get to {place}|drive to {place}|"
        "i need directions",
        "i need to go to {place}|which way to {place}|get me to {place}|let us head for {place}",
        1.6,
    ),
    "traffic": _intent(
        "navigation",
        "",
        "how is the traffic|how is the traffic to {place}|how long to {place}",
        "are the roads clear|will i be late for {place}",
        0.8,
    ),
    "ask_fact": _intent(
        "questions",
        "fact",
        "what is {fact}|tell me {fact}|do you know {fact}|i have a question",
        "i was wondering about {fact}|any idea about {fact}|look up {fact}|we have a bet on {fact}",
        1.6,
    ),
    "define_word": _intent(
        "questions",
        "word",
        "define {word}|what does {word} mean|what is the meaning of {word}|what does a word mean",
        "in what sense do people say {word}|is {word} even a word",
        0.8,
    ),
    "tell_joke": _intent(
        "questions", "", "tell me a joke|say something funny|do you know a joke", "make me laugh|cheer me up", 0.6
    ),
    "play_news": _intent(
        "news",
        "",
        "play the news|what is in the news|tell me the news|news about {subject}",
        "what is going on in {subject}|what did i miss today|headlines on {subject}",
        1.2,
    ),
    "stop": _intent(
        "general",
        "",
        "stop|stop it|cancel|never mind|forget it|be quiet|shut up",
        "leave it|enough|oh come on stop",
        0.0,
    ),
    "yes": _intent(
        "general", "", "yes|yeah|yes please|correct|sure|yep|right", "that is the one|go for it|uh huh", 0.0
    ),
    "no": _intent(
        "general", "", "no|nope|no thanks|wrong|no that is not it", "not at all|nah|that is not what i said", 0.0
    ),
    "inform": _intent(
        "general",
        "",
        """{duration}|for {duration}|{time}|at {time}|{date}|{contact}|{item}|{message}|{event}|{room}
        the one in the {room}|the {media_type}
        by {artist}|{artist}|the {device}|{color}|{level}|{temperature} degrees|{place}|{title}|{word}|{fact}
        say {message}|{city}""",
        "make that {duration}|let us say {time}|it is for {contact}|the {room} one|i meant the {media_type}|"
        "the version by {artist}",
        0.0,
    ),
    "unsupported": _intent(
        "unsupported",
        "",
        """book a flight to {city}|order a pizza|call me a taxi|what is my bank balance|pay my phone bill
        send an email to {contact}
        translate good morning into french|take a picture|book a table for two|read my email
        buy a train ticket to {city}""",
        """how much money do i have left|find me a cheap hotel in {city}|walk the dog|print this page
        post that to my page
        sing happy birthday with me|turn the car on|record this conversation""",
        0.9,
    ),
}
"""By name. `inform` answers a question of the assistant; `unsupported` is what it cannot do."""

VALUES: dict[str, tuple[str, ...]] = {
    "duration": (
        *tuple(
            f"{number} {unit}"
            for unit, numbers in (
                (
                    "minutes",
                    "two three five seven ten twelve thirteen fifteen eighteen twenty thirty forty fifty ninety",
                ),
                ("seconds", "ten thirty forty ninety"),
                ("hours", "two three four"),
            )
            for number in numbers.split()
        ),
        "one hour",
        "half an hour",
        "forty five minutes",
        "twenty five minutes",
        "an hour and a half",
    ),
    "time": (
        *tuple(
            f"{hour}{minutes} {half}"
            for hour in ["five", "six", "seven", "eight", "nine", "ten", "eleven"]
            for minutes in ("", " fifteen", " thirty", " forty five", " fifty")
            for half in ("a m", "p m")
        ),
        "noon",
        "midnight",
        "half past six",
        "a quarter to eight",
        "six o'clock",
        "seven o'clock",
        "eight o'clock",
    ),
    "date": (
        *("today", "tomorrow", "tonight", "this weekend", "next week", "next monday", "next tuesday", "next friday"),
        *(f"on {day}" for day in ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]),
    ),
    "level": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    "temperature": (
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
        "sixty",
        "sixty eight",
        "seventy",
        "seventy two",
    ),
    "color": ("red", "blue", "green", "white", "yellow", "purple", "orange", "pink"),
    "room": ("bedroom", "living room", "office", "kitchen", "hallway", "study", "bathroom", "garden", "garage"),
    "media_type": ("movie", "series", "audiobook", "soundtrack", "film", "show"),
    "message": (
        "i am running late",
        "i will be there in ten minutes",
        "happy birthday",
        "can you pick up the kids",
        "dinner is ready",
        "call me back",
        "the meeting is moved to four",
        "i love you",
        "thanks for last night",
        "please feed the cat",
        "i left my keys",
        "see you on sunday",
        "the train is late again",
        "we need more milk",
    ),
    "event": (
        "dinner with mom",
        "a dentist appointment",
        "lunch with peter",
        "a team meeting",
        "the school play",
        "a doctor appointment",
        "piano lesson",
        "football practice",
        "a call with the bank",
        "my wedding anniversary",
        "a haircut",
        "the parents evening",
        "yoga class",
        "book club",
    ),
    "word": (
        "serendipity",
        "ambiguous",
        "benevolent",
        "candid",
        "frugal",
        "nostalgia",
        "obsolete",
        "pragmatic",
        "resilient",
        "tedious",
        "vivid",
        "zealous",
    ),
    "subject": (
        "sports",
        "politics",
        "business",
        "the weather",
        "science",
        "football",
        "the economy",
        "europe",
        "technology",
        "health",
    ),
}
"""Values of the slots that are no entities of the catalogue."""

OPENERS: tuple[str, ...] = (
    "hey",
    "okay",
    "um",
    "uh",
    "so",
    "and",
    "please",
    "can you",
    "could you",
    "i want you to",
    "would you",
)
"""Said before a request by some, some of the time."""
QUESTION_OPENERS = OPENERS[:6]
"""Those that fit a question or a statement, too."""
_IMPERATIVES = frozenset(
    [
        "play",
        "put",
        "start",
        "listen",
        "throw",
        "give",
        "get",
        "blast",
        "open",
        "continue",
        "resume",
        "go",
        "carry",
        "show",
        "turn",
        "volume",
        "lower",
        "set",
        "change",
        "switch",
        "power",
        "wake",
        "kill",
        "shut",
        "make",
        "heat",
        "warm",
        "lock",
        "count",
        "ping",
        "tell",
        "cancel",
        "stop",
        "delete",
        "forget",
        "check",
        "define",
        "add",
        "order",
        "buy",
        "send",
        "stock",
        "call",
        "phone",
        "ring",
        "try",
        "text",
        "message",
        "let",
        "write",
        "drop",
        "schedule",
        "create",
        "block",
        "pencil",
        "navigate",
        "take",
        "drive",
        "look",
        "say",
        "cheer",
        "skip",
        "pause",
        "book",
        "pay",
        "translate",
        "find",
        "walk",
        "print",
        "post",
        "read",
        "crank",
    ]
)


CLOSERS: tuple[str, ...] = ("please", "now", "thanks", "for me", "right now", "if you can", "when you can")

ASIDES: tuple[str, ...] = (
    "because it is freezing outside",
    "before my mom calls",
    "the kids are asleep",
    "i think it is in the kitchen",
    "we are having people over tonight",
    "not the other one",
    "like yesterday",
    "i always forget that",
    "while i cook the pasta",
    "so that we can watch the game",
    "my hands are full",
    "it is for the party on friday",
)
"""What people add that is no part of the request, and that can mislead."""

CORRECTIONS: tuple[str, ...] = ("no", "no i said", "i said", "no i meant", "that is not it", "wrong")
"""Said before a request that is made again."""

TO_PEOPLE: tuple[str, ...] = (
    "",
    "",
    "can you",
    "honey",
    "did you",
    "should we",
    "you could",
    "do not",
    "i will",
    "darling can you",
)
"""Said before what is asked of somebody in the room."""

BACKGROUND: dict[str, tuple[str, ...]] = {
    "radio": (
        "and now the weather rain is expected in the north {date} with strong winds along the coast",
        "that was {artist} with their new song {song} you are listening to city radio",
        "coming up next the news at {time} but first a word from our sponsors",
        "call now and get two for the price of one",
        "traffic is slow on the main road to {place} after an accident this morning",
        "the price of {item} has gone up again this month",
        "the minister said today that the plan will not change before next year",
        "he shoots and it is wide of the goal what a chance for the home team",
        "play along with us and win tickets to see {artist} live in {city}",
        "good morning it is {time} and here are the headlines",
        "our top story tonight the fire in {city} is now under control",
        "stay tuned for more {genre} music all through the night",
        "turn up the heat this summer with flights to {city} from ninety nine",
        "scientists have found water on the second moon of the largest planet",
        "order before midnight and we will send it to you for free",
        "markets fell sharply this afternoon as oil prices rose",
    ),
    "television": (
        "you cannot leave me now not after all these years",
        "turn off the lights and get down they are coming",
        "open the door i know that you are in there",
        "previously on {title}",
        "who killed him tell me the truth",
        "set a course for home captain we have {duration} of air left",
        "call the police there is somebody in the house",
        "i never loved you and i never will",
        "stop the car stop it right now",
        "doctor we are losing him",
        "and the winner is number seven from {city}",
        "add two cups of flour and a little {item} and mix it well",
        "lower the sails there is a storm coming",
    ),
    "conversation": (
        "did you call {contact} about the car",
        "i told you to be home by {time}",
        "how was school today did you play with your friends",
        "can you pass me the {item} please",
        "do you want some more coffee or tea",
        "we should go to {city} some time it is lovely there",
        "what time is your train {date}",
        "have you seen my keys they were on the table",
        "she said that she would be here in {duration}",
        "turn it down i am on the phone",
        "no way he did not say that",
        "so i put the {item} in the oven and then i forgot about it",
        "let us watch {title} tonight or are you too tired",
        "play nicely you two",
        "he always leaves the lights on in the bathroom",
        "are you listening to me at all",
        "yes i will see you {date} bye",
    ),
    "noise": ("", "uh", "the", "a", "um", "oh", "huh", "it", "i"),
}
"""Sound that is not meant for the assistant, by its source."""


def openers_for(text: str) -> tuple[str, ...]:
    """What can be said before `text`."""
    return OPENERS if text.split(" ", 1)[0] in _IMPERATIVES else QUESTION_OPENERS
