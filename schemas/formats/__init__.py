"""Log formats, one file each. `formats()` finds every module of this package that defines one.

A new format is one new file here with one class that derives from `DialogueFormat` or `EventFormat`.
"""

from schemas.formats.base import (
    DialogueFormat,
    EventFormat,
    LogFormat,
    UnknownFormatError,
    formats,
    get_format,
)

__all__ = ["DialogueFormat", "EventFormat", "LogFormat", "UnknownFormatError", "formats", "get_format"]
