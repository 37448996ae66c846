"""What --redact finds in texts, on a list written for this test: every name, number and address is made up."""

from __future__ import annotations

import time

import pytest

from pipelines.redaction import redacted, redacted_value

FOUND = {
    "e-mail": [
        "send it to anna.b@example.org please|anna.b@example.org",
        "ANNA+SHOP@mail.example.co.uk|ANNA+SHOP@mail.example.co.uk",
        "büro@beispiel.example, danke|büro@beispiel.example",
        '{"to": "a_b@example.com"}|a_b@example.com',
        "it is anna dot berg at example dot com|anna dot berg at example dot com",
        "mail bob at example dot co dot uk now|bob at example dot co dot uk",
    ],
    "phone": [
        "call +49 151 23456789 now|+49 151 23456789",
        "call 0151 23456789|0151 23456789",
        "ring 01223 323 737 please|01223 323 737",
        "the number is (415) 555-2671.|(415) 555-2671",
        "text 415.555.2671|415.555.2671",
        "dial 4155552671|4155552671",
        "my number is 555-0123|555-0123",
        "020 7946 0958|020 7946 0958",
        "06 12 34 56 78|06 12 34 56 78",
        "+49 (0)151/234 567-89|+49 (0)151/234 567-89",
        "in singapore 6512 3456|6512 3456",
        "call four one five five five five two six seven one|four one five five five five two six seven one",
        "it's oh seven nine double four one two three|oh seven nine double four one two three",
        "٤١٥٥٥٥٢٦٧١|٤١٥٥٥٥٢٦٧١",
    ],
    "card": [
        "pay with 4111 1111 1111 1111|4111 1111 1111 1111",
        "misheard: 4111 1111 1111 1112|4111 1111 1111 1112",
        "5500-0055-5555-5559 is it|5500-0055-5555-5559",
        "378282246310005|378282246310005",
    ],
    "account": [
        "DE89 3704 0044 0532 0130 00 please|DE89 3704 0044 0532 0130 00",
        "gb82west12345698765432|gb82west12345698765432",
        "my social is 123-45-6789|123-45-6789",
    ],
    "address": ["from 192.168.0.17 today|192.168.0.17", "at fe80::1ff:fe23:4567:890a ok|fe80::1ff:fe23:4567:890a"],
}
LEFT = [
    "set an alarm for 2024-03-01 08:15",
    "on 01.03.2024 at 8:15",
    "2024-03-01T08:15:02.123456+00:00",
    "the score is 0.6123456789",
    "a timer for ten 20 30 minutes",
    "one two three go",
    "meet me at noon, dot the i",
    "it costs 1,000,000 dollars",
    "call 911",
    "play top 40 from 1999",
    "what is 12 times 12",
    "",
]


@pytest.mark.parametrize(("text", "what"), [case.split("|") for cases in FOUND.values() for case in cases])
def test_what_identifies_a_person_is_masked_and_nothing_else(text: str, what: str) -> None:
    assert redacted(text) == text.replace(what, "*" * len(what))


@pytest.mark.parametrize("text", LEFT)
def test_what_identifies_nobody_is_left(text: str) -> None:
    assert redacted(text) == text


def test_a_part_of_a_number_is_masked_in_a_slot() -> None:
    assert redacted_value("415", 5, 8, "call 415 555 2671") == "***"
    assert redacted_value("anna.b", None, None, "write to anna.b@example.org") == "******"
    assert redacted_value("thirteen", 5, 15, "call 4155552671") == "********"
    assert redacted_value("noon", 3, 7, "at noon call 415 555 2671") == "noon"


def test_a_long_text_is_gone_through_once_for_all_of_its_slots() -> None:
    text = "call 4155552671 now " * 10_000
    started = time.process_time()
    assert {redacted_value(f"now {index}", None, None, text) for index in range(300)} >= {"now 1", "now 299"}
    assert time.process_time() - started < 20  # once each would be more than a minute
