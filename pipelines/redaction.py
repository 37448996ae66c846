"""`--redact`: what identifies a person in the texts of a log is masked, a `*` for a character.

A mask is as long as what it hides, so every position in a text is where it was: a slot's span fits the masked text
and the log alike. What is found, by rules and without a model or a network:

- e-mail addresses, written or, as a recogniser has them, spoken ("anna at example dot com");
- IBANs, by `stdnum` (ISO 13616: their form by country, and their check digits);
- any number of nine digits or more, with or without separators: cards, phones, accounts, social security. No
  checksum is asked for, since one misheard digit breaks it. Dates, times and decimal fractions are left, and so are
  lists: a comma is within a number only between groups of three or four digits, without a space;
- shorter phone numbers, by `phonenumbers` (the metadata of Google's libphonenumber) of `REGIONS`;
- seven or more digits spoken as English words ("four one five double five …");
- IP addresses.

Names, street addresses and what else only understanding finds is not masked.
"""

from __future__ import annotations

import functools
import ipaddress
import re

import phonenumbers
from phonenumbers import NumberParseException
from stdnum import iban

MASK = "*"
REGIONS = ("US", "GB", "IE", "AU", "NZ", "IN", "ZA", "SG", "HK", "NO", "DK")
"""Where a number of seven or eight digits may be a phone number: those that speak English, and two of its neighbours
whose numbers are that short."""

_DIGIT_WORD = r"(?:(?:double|triple)[\s-]+)?(?:zero|oh|one|two|three|four|five|six|seven|eight|nine)"
_SUSPECT = re.compile(rf"[\d@]|\bdot\b|(?:\b{_DIGIT_WORD}\b\W+){{4}}", re.IGNORECASE)
"""A text without it has nothing to mask."""
# Between letters an apostrophe is part of a name; elsewhere it is a quotation mark.
_LOCAL_PART = r"[^\s@<>\"'(),;:\[\]]{1,64}"
_EMAIL = re.compile(rf"(?:{_LOCAL_PART}(?<=\w)'(?=\w)){{0,2}}{_LOCAL_PART}@[\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{1,8}}")
_NAME = r"\w(?:['\u2019]?\w){0,63}"
_SPOKEN_EMAIL = re.compile(
    rf"\b{_NAME}(?:\s(?:dot|dash|underscore)\s{_NAME}){{0,4}}\sat\s\w{{1,63}}(?:\sdot\s\w{{2,63}}){{1,4}}\b",
    re.IGNORECASE,
)
_SPOKEN_NUMBER = re.compile(rf"\b{_DIGIT_WORD}(?:[\s,-]{{1,3}}{_DIGIT_WORD}){{6,}}\b", re.IGNORECASE)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}\b", re.IGNORECASE)
_IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7})(?![\w.:]\w)", re.IGNORECASE
)
# What they cannot be is said, for \d has the digits of all scripts.
_MONTH, _DAY = r"(?!1[3-9]|[2-9]\d)\d{1,2}", r"(?!3[2-9]|[4-9]\d)\d{1,2}"
_DATE = rf"(?:\d{{4}}[-./]{_MONTH}[-./]{_DAY}|(?:{_DAY}[-./]{_MONTH}|{_MONTH}[-./]{_DAY})[-./]\d{{4}})"
# Where more digits follow that are no time, it is the head of a longer number.
_DATES = rf"{_DATE}(?:[-/]{_DATE})?(?!\d|[-./](?!\d{{1,2}}:)\d)"
_DECIMAL = r"(?:\d{1,2}\.\d+|\d{1,3}(?:,\d{3}){1,2}\.\d{1,3})(?![.\d])"
_NUMBER = re.compile(
    rf"(?P<left>(?<!\d)\(?(?:{_DATES}|{_DECIMAL}))"
    rf"|(?P<number>[+(]?\d(?:(?:[ ().\-/]{{0,2}}|,(?!{_DATES})(?=\d{{3,4}}(?!\d)))\d){{6,}})"
)
_ALWAYS_MASKED = 9
"""Digits."""
_SHORTEST = 7
"""Digits of a phone number that is looked for."""
_LOCAL = re.compile(r"\d{3}[-. ]\d{4}")


# Of one turn it is asked again for each slot, and a text can have megabytes. Few, for that reason.
@functools.lru_cache(maxsize=4)
def redacted(text: str) -> str:
    """The text with a `*` for each character of what identifies a person."""
    if _SUSPECT.search(text) is None:
        return text
    text = _EMAIL.sub(_masked, text)
    text = _SPOKEN_EMAIL.sub(_masked, text)
    text = _IBAN.sub(_without_iban, text)
    text = _IP.sub(_without_ip, text)
    text = _NUMBER.sub(_without_number, text)
    return _SPOKEN_NUMBER.sub(_masked, text)


def redacted_value(value: str, start: int | None, end: int | None, text: str) -> str:
    """The value of a slot in `text`, masked where the text is: a part of a number is no number by itself."""
    if start is None or end is None:
        start = text.find(value)
        end = start + len(value)
    said, masked = text[max(start, 0) : end], redacted(text)[max(start, 0) : end]
    if start < 0 or said == masked:
        return redacted(value)
    return masked if said == value else MASK * len(value)


def _masked(found: re.Match[str]) -> str:
    return MASK * len(found[0])


def _without_iban(found: re.Match[str]) -> str:
    # Words may follow it, and fit the pattern as well as its own letters do.
    for end in range(len(found[0]), 14, -1):
        if found[0][end - 1].isalnum() and iban.is_valid(found[0][:end]):
            return MASK * end + found[0][end:]
    return found[0]


def _without_ip(found: re.Match[str]) -> str:
    try:
        ipaddress.ip_address(found[0])
    except ValueError:
        return found[0]
    return _masked(found)


def _without_number(found: re.Match[str]) -> str:
    number = found["number"]
    if number is None:
        return found[0]
    if _digits(number) >= _ALWAYS_MASKED:
        return _masked(found)
    # Of so few digits with a comma it is an amount, or more than one number.
    return ",".join(MASK * len(part) if _is_short_phone(part) else part for part in number.split(","))


def _digits(number: str) -> int:
    return sum(map(str.isdecimal, number))


def _is_short_phone(number: str) -> bool:
    return _digits(number) >= _SHORTEST and (_LOCAL.fullmatch(number) is not None or _is_phone(number))


@functools.lru_cache(maxsize=10_000)
def _is_phone(number: str) -> bool:
    for region in REGIONS:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(number, region)):
                return True
        except NumberParseException:
            return False
    return False
