"""Everything a job can fail with.

JobError
├── UserError      the options or what they name are wrong: exit code 2
├── RunFailed      the run was sound and could not be finished: exit code 1
└── DriftFound     the run was finished, and what it was to watch for is there: exit code 3

The message is one sentence that says what is wrong and what to do; it is all that the user sees.
Bad *records* are no errors: they are rows of the `rejected` table (`schemas.rejects`).
"""

from __future__ import annotations

import errno


class JobError(Exception):
    """Base of what ends a job early. `exit_code` is what the process returns."""

    exit_code: int


class UserError(JobError):
    """The user can put it right by changing the command."""

    exit_code = 2


class RunFailed(JobError):  # noqa: N818 - it reads as what happened
    """The run could not be finished. Nothing was published."""

    exit_code = 1


def unwritable(place: str, error: OSError) -> JobError:
    """What to raise where `error` keeps a job from writing to `place`, such as `--output out`."""
    said = error.strerror or error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunFailed(f"Cannot write to {place} ({said}): make room there, and give the same command again.")
    return UserError(f"Cannot write to {place} ({said}): choose another.")


class DriftFound(JobError):  # noqa: N818 - it reads as what happened
    """`faultline drift` has found a drift; everything is written."""

    exit_code = 3
