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
        "to Anna.O'Brien@example.com please|Anna.O'Brien@example.com",
        "to Anna.O\u2019Brien@example.com please|Anna.O\u2019Brien@example.com",
        "to: 'anna@example.com'|anna@example.com",
        "it is anna dot o'brien at example dot com|anna dot o'brien at example dot com",
    ],
    "phone": [
        "call +49 151 23456789 now|+49 151 23456789",
        "call 0151 23456789|0151 23456789",
        "ring 01223 323 737 please|01223 323 737",
        "the number is (415) 555-2671.|(415) 555-2671",
        "text 415.555.2671|415.555.2671",
        "dial 4155552671|4155552671",
        "my number is 555-0123|555-0123",
        "room 1,555-0123|555-0123",
        "call 415,555,2671|415,555,2671",
        "call 415,555.2671|415,555.2671",
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
        "1234-56-78-9012|1234-56-78-9012",
        "is 1234-56-78 9012 right|1234-56-78 9012",
        "12-04-5678-9012|12-04-5678-9012",
        "12/34/5678/9012|12/34/5678/9012",
        "4111,1111,1111,1111|4111,1111,1111,1111",
    ],
    "account": [
        "DE89 3704 0044 0532 0130 00 please|DE89 3704 0044 0532 0130 00",
        "gb82west12345698765432|gb82west12345698765432",
        "my social is 123-45-6789|123-45-6789",
        "account 1,234,567,890.|1,234,567,890",
    ],
    "address": ["from 192.168.0.17 today|192.168.0.17", "at fe80::1ff:fe23:4567:890a ok|fe80::1ff:fe23:4567:890a"],
}
LEFT = [
    "set an alarm for 2024-03-01 08:15",
    "from 12/31/2024-01/05/2025, or 2024-12-31.",
    "on 01.03.2024 at 8:15",
    "2024-03-01T08:15:02.123456+00:00",
    "the score is 0.6123456789",
    "a timer for ten 20 30 minutes",
    "one two three go",
    "meet me at noon, dot the i",
    "it costs 1,000,000 dollars",
    "it costs 1,234,567.89 dollars",
    "play 1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
    "add 1,2,3,4,5,6,7,8,9,10",
    "the years 1999, 2000, 2001",
    "from 2024-03-01/2024-03-05 (01.03.2024 08:15)",
    "at 2024-03-01/08:15, 1,2024-03-01",
    "on \u0662\u0660\u0662\u0664-\u0660\u0663-\u0660\u0661 \u0660\u0668:\u0661\u0665",  # in Arabic digits
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


@pytest.mark.parametrize("piece", ["1,", "1,234", "1-2-", "12-04-", "2024-03-01-", "1.", "a'", "o'b ", "dot a'b "])
def test_the_time_that_a_text_takes_grows_with_its_length(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    started = time.process_time()
    assert len(redacted(f"{text} 1 @")) == len(text) + 4
    assert time.process_time() - started < 20  # what takes the square of the length would be at it for many minutes


def test_a_long_text_is_gone_through_once_for_all_of_its_slots() -> None:
    text = "call 4155552671 now " * 10_000
    started = time.process_time()
    assert {redacted_value(f"now {index}", None, None, text) for index in range(300)} >= {"now 1", "now 299"}
    assert time.process_time() - started < 20  # once each would be more than a minute
