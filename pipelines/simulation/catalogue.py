"""What there is in the simulated world: titles, people, devices, places and goods, with their homonyms.

All names are made up or common words. An entity has a `full` name, by which it can be told from its namesakes,
and a `short` one, which it may share with others: two lamps, two Annas, the film and the audiobook of one title.
"""

from __future__ import annotations

import random
from typing import NamedTuple

_SEED = 20240304
"""Decides which titles have which versions: part of the world, not of a run."""


class Entity(NamedTuple):
    """Something that a slot can mean."""

    entity_id: str
    kind: str
    """Which slot looks it up."""
    short: str
    full: str
    variant: str
    """What tells it from its namesakes, as a user would say it: a room, a media type, an artist; may be empty."""
    weight: float
    """How often it is meant, relative to others of its kind."""
    says: str = ""
    """What the assistant answers with, for kinds that are questions."""

    @property
    def name(self) -> str:
        """As the assistant writes it."""
        return self.full if self.kind in _COMMON else self.full.title()


_COMMON = frozenset({"device", "item", "place", "fact", "genre"})
"""Kinds that have no names of their own."""

_TITLES = """the silent harbor|midnight garden|the last train home|river of stars|a winter promise|the glass mountain
the hidden island|summer rain|the orange kite|city of shadows|the long goodbye|under the bridge|the secret kingdom
broken compass|the iron gate|ocean road|the lonely giant|falling leaves|the clock maker|the wild geese|northern lights
the paper boat|red desert|the second moon|the empty house|dancing in the dark|the butterfly hunter|cold coffee
the night market|golden hour|a distant shore|the fox and the moon|the stone bridge|blue monday|the whale song
the copper king|after the storm|the green door|kings of summer|the snow child"""

_ARTISTS = """anna reed|the paper lanterns|marcus stone|silver wolves|lena hart|the river kings|otis green
velvet morning|clara moon|the lost sailors|ray winters|the honey bees|sophie lane|midnight choir|johnny wild
the blue notes
erin cole|aaron cole|the wild hearts|the mild hearts|desert sons|grace kelly band|the bright side|frank malone
the city lights|nora fields|king harvest|the broken strings|rosa bell|the north wind"""

_SONGS = """sweet summer|dancing shoes|hold me closer|the road to nowhere|paper hearts|fly away|burning bridges
one more night|shine on|cold water|lucky star|heart of gold|running home|the morning after|slow motion|stay with me
blue river|wild horses|electric dreams|breathe again|tonight|forever young|rain on me|higher ground|little wonder
good morning sunshine|diamond sky|carry me|waiting for you|gravity"""

_PLAYLISTS = """workout mix|dinner party|road trip|morning coffee|party favorites|sleep sounds|study time|cooking songs
weekend mix|rainy day|running list|family dinner"""

_PEOPLE = """anna reed|anna miller|john baker|jon barker|sean cooper|shawn carter|mary jones|marie jones|peter brown
mike brown|mark white|claire evans|clare adams|david lee|davina lee|sarah king|sara kent|tom harris|tim harris|emma ward
paul young|laura hill|lauren hill|chris parker|kris palmer|dan fisher|diane fisher|kate morgan|helen scott|alan price
ellen price|robert gray|rob grant|nick turner|susan bell|mom|dad|grandma|the dentist|the office|my sister|my boss"""

_DEVICES = """lamp:bedroom|lamp:living room|lamp:office|ceiling light:kitchen|ceiling light:hallway
ceiling light:bedroom|desk light:office|desk light:study|floor lamp:living room|heater:bathroom|heater:office
fan:bedroom|fan:living room
television:living room|television:bedroom|coffee machine:kitchen|speaker:kitchen|speaker:bathroom|lights:garden
lights:garage|lights:kitchen|lights:living room|lights:bedroom|plug:kitchen|plug:hallway|radio:kitchen|radio:bathroom"""

_ITEMS = """milk:whole|milk:oat|milk:almond|bread:white|bread:brown|eggs:free range|eggs:brown|butter:salted
butter:peanut|coffee:ground|coffee:instant|tea:green|tea:black|apples:red|apples:green|rice:brown|rice:white|chicken
pasta|tomatoes|toilet paper|dish soap|light bulbs|batteries:double a|batteries:triple a|olive oil|paper towels|bananas
orange juice|cheese|dog food|cat food|shampoo|tooth paste|onions|garlic|sugar:brown|sugar:white|flour|yogurt:plain
yogurt:vanilla|salmon|cereal|chocolate:dark|chocolate:milk|laundry detergent"""

_CITIES = """springfield:illinois|springfield:missouri|portland:oregon|portland:maine|london|london:ontario|paris
paris:texas|boston|seattle|chicago|denver|austin|berlin|madrid|dublin|dublin:ohio|new york|san francisco|toronto|rome
cambridge|cambridge:massachusetts|manchester|columbus|columbia|oakland|auckland|sydney|tokyo|miami|dallas|phoenix"""

_PLACES = """the station:bridge road|the station:river street|the airport|the gym|the library:main street
the library:park road
work|home|the coffee shop:market street|the coffee shop:hill road|the hospital|the post office:main street
the post office:church road|the beach|the school|the pharmacy:high street|the pharmacy:station road|the stadium
the museum|the bank:main street|the bank:king street|the supermarket|the gas station|city hall|the zoo|the park"""

_FACTS = """the tallest mountain=Mount Everest, at 8,849 meters|the capital of australia=Canberra
the population of france=about 68 million|the speed of light=299,792 kilometers a second|the largest ocean=the Pacific
the capital of austria=Vienna|the boiling point of water=100 degrees Celsius|the distance to the moon=384,400 kilometers
the distance to the sun=about 150 million kilometers|the longest river=the Nile, by most accounts
the age of the earth=about four and a half billion years|the fastest animal=the peregrine falcon
the capital of canada=Ottawa
the largest planet=Jupiter|the smallest country=Vatican City|the population of china=about 1.4 billion
the height of the eiffel tower=330 meters
the capital of kenya=Nairobi|the inventor of the telephone=Alexander Graham Bell
the author of hamlet=William Shakespeare
the number of bones in the body=206|the capital of peru=Lima|the currency of japan=the yen
the weight of an elephant=about six tonnes|the currency of china=the yuan"""

GENRES = ["jazz", "rock", "classical", "pop", "country", "blues", "folk", "reggae", "soul", "metal", "disco"]


def _split(text: str) -> list[str]:
    return [each.strip() for each in text.replace("\n", "|").split("|")]


def build() -> dict[str, list[Entity]]:
    """All entities by kind. The same on every call."""
    rng = random.Random(_SEED)
    found: dict[str, list[Entity]] = {}

    def add(kind: str, short: str, full: str = "", variant: str = "", says: str = "") -> None:
        entities = found.setdefault(kind, [])
        weight = round(rng.paretovariate(1.6), 3)
        entities.append(Entity(f"{kind}-{len(entities):03d}", kind, short, full or short, variant, weight, says))

    artists = _split(_ARTISTS)
    for name in artists:
        add("artist", name)
    for name in _split(_SONGS):
        for artist in rng.sample(artists, rng.choice((1, 1, 2, 3))):
            add("song", name, f"{name} by {artist}", artist)
    for name in _split(_TITLES):
        for media in rng.sample(("movie", "series", "audiobook", "soundtrack"), rng.choice((1, 2, 2, 3))):
            add("title", name, f"{name} {media}", media)
    for name in _split(_PLAYLISTS):
        add("playlist", name)
    for name in GENRES:
        add("genre", name)
    for name in _split(_PEOPLE):
        add(
            "contact",
            name.split()[0] if len(name.split()) == 2 and name.split()[0] not in ("the", "my") else name,
            name,
        )
    for kind, text, full in (
        ("device", _DEVICES, "{variant} {short}"),
        ("item", _ITEMS, "{variant} {short}"),
        ("city", _CITIES, "{short} {variant}"),
        ("place", _PLACES, "{short} on {variant}"),
    ):
        for entry in _split(text):
            short, _, variant = entry.partition(":")
            name = full.format(short=short, variant=variant) if variant else short
            add(kind, short, name, variant)
    for entry in _split(_FACTS):
        question, _, answer = entry.partition("=")
        add("fact", question, says=answer)
    return found
