"""Passwords and tokens in addresses and options: told, and left out of what is shown or kept."""

from __future__ import annotations

import re

HIDDEN = "…"

# A password may hold a slash or another @: what follows `user:` is taken up to the last @.
_USER_INFO = re.compile(r"(?<=://)(?:[^:/\s]*:\S*|[^/?#\s]*)@")
_SECRET_NAME = re.compile(r"secret|passw|token|credential|signature|api_?key|access_?key|sas_?key|private_?key", re.I)
_QUERY = re.compile(r"(?P<name>[?&][\w.-]+=)[^&\s#'\"]+")


def has_password(address: str) -> bool:
    """Whether it names a user, with a password or without, or carries a token in its query."""
    return without_secrets(address) != address


def without_secrets(text: str) -> str:
    """The text with every address in it less its user, its password and the tokens in its query."""
    text = _USER_INFO.sub(f"{HIDDEN}@", text)
    return _QUERY.sub(lambda found: found["name"] + HIDDEN if is_secret(found["name"]) else found[0], text)


def is_secret(name: str) -> bool:
    """Whether an option or a parameter of that name holds what nobody else may know."""
    return _SECRET_NAME.search(name) is not None
