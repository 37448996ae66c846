"""The command `faultline`: finds the jobs of this package and runs one.

A job is a module here whose docstring begins with its command in backquotes and what it does:

    \"\"\"`faultline label`: reads dialogue logs and …

and which has `run(argv)`. Modules are looked at as text and imported only to be run.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import logging
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import pipelines
from pipelines.credentials import without_secrets
from pipelines.errors import JobError, UserError

_COMMAND = re.compile(r"`faultline (?P<name>[\w-]+)`: (?P<what>[^\n]+)")
VERBOSE = "--verbose"
_HELP = ("-h", "--help")
_INTERRUPTED = 130


def jobs() -> Mapping[str, tuple[str, str]]:
    """Every command with its module and what it does, in alphabetical order."""
    found = {}
    for module in pkgutil.iter_modules(pipelines.__path__, "pipelines."):
        spec = importlib.util.find_spec(module.name)
        source = spec.loader.get_source(module.name) if spec and spec.loader else None  # type: ignore[attr-defined]
        command = _COMMAND.match(ast.get_docstring(ast.parse(source or "")) or "")
        if command is not None:
            found[command["name"]] = (module.name, command["what"])
    return dict(sorted(found.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; gives the exit code: 0 done, 1 the run failed, 2 the command is wrong, 3 a drift."""
    argv = sys.argv[1:] if argv is None else argv
    if VERBOSE not in argv:
        # Before any import of a library that says something when it is imported.
        logging.basicConfig(level=logging.ERROR)
        # Beam logs the traceback of what it then raises; the job says it in a sentence.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    return guarded(lambda: _run(argv))


def guarded(run: Callable[[], int | None]) -> int:
    """Runs a job, or anything else that raises `JobError`, whose sentence it prints; gives the exit code."""
    try:
        return run() or 0
    except JobError as error:
        sys.stderr.write(f"{without_secrets(str(error))}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. Where a job keeps what is finished, the same command goes on from there.\n")
        return _INTERRUPTED


def _run(argv: Sequence[str]) -> int:
    if not argv or argv[0] in _HELP:
        sys.stdout.write(_help())
        return 0 if argv else UserError.exit_code
    known = jobs()
    if argv[0] not in known:
        raise UserError(f"There is no faultline {argv[0]}: choose one of {', '.join(known)}.")
    importlib.import_module(known[argv[0]][0]).run(list(argv[1:]))
    return 0


def _help() -> str:
    known = jobs()
    width = max(map(len, known))
    lines = "".join(f"  {name:<{width}}  {what}\n" for name, (_, what) in known.items())
    return f"usage: faultline COMMAND …\n\n{lines}\nfaultline COMMAND --help says what its options do.\n"


if __name__ == "__main__":
    sys.exit(main())
