"""The command line: one obvious command, one line of advice for every error.

Why: `motet --help` answers at once, so nothing heavy is imported before a command needs it.
Runs: anywhere. Source: own.
"""

import errno
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from flows.cli.parser import load_handler, parse

OUR_PACKAGES = ("flows", "tasks", "data_contracts", "deployments")
EXIT_INTERRUPTED = 130
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_SYSTEM = 74  # EX_IOERR
EXIT_INSTALLATION = 78  # EX_CONFIG


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments; those of the process if None.

    Returns:
        Exit code: 0, or that of the error's branch.
    """
    foreign = foreign_package()
    if foreign is not None:
        return _refuse(
            "--json" in (sys.argv if argv is None else argv),
            "ForeignPackage",
            f"Python takes the package '{foreign}' from elsewhere than motet's own, which lies in '{_root()}'",
            "install motet into an environment of its own, and run it where no file has the name of its packages",
            EXIT_INSTALLATION,
        )
    return _run(argv)


def foreign_package() -> str | None:
    """Name the first of our packages that Python would take from elsewhere; their names are generic.

    Nothing is imported for it, so nothing foreign runs.
    """
    for name in OUR_PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent != _root() / name:
            return name
    return None


def _root() -> Path:
    return Path(__file__).resolve().parents[2]


def _run(argv: Sequence[str] | None) -> int:
    from data_contracts.errors import MotetError

    arguments = parse(argv)
    os.umask(0o077)  # whatever this command or a server of it writes is for its user alone
    try:
        outcome = load_handler(arguments)(arguments)
    except MotetError as exc:
        return _refuse(arguments.json, type(exc).__name__, str(exc), exc.advice, exc.exit_code)
    except KeyboardInterrupt:
        return _refuse(
            arguments.json,
            "Interrupted",
            "stopped by you",
            "run the same command again: it resumes",
            EXIT_INTERRUPTED,
        )
    except OSError as exc:
        advice = (
            "free space and run the same command again: it resumes"
            if exc.errno == errno.ENOSPC
            else ("check that the path exists and may be written, then run the same command again")
        )
        message = f"the system refused{_typed(exc, vars(arguments).values())}: {exc.strerror}"
        return _refuse(arguments.json, "SystemError", message, advice, EXIT_SYSTEM)
    except BaseException as exc:
        if getattr(arguments, "verbose", False) or isinstance(exc, SystemExit):
            raise
        # Its text could hold a confidential value, so only its kind is shown.
        return _refuse(
            arguments.json,
            "Bug",
            f"motet failed with an unexpected {type(exc).__name__}",
            "this is a bug of motet: repeat with --verbose to see where, and report it without your data",
            EXIT_BUG,
        )
    if arguments.json:
        print(json.dumps(outcome, sort_keys=True))
    return 0


def _typed(refused: OSError, values: Iterable[object]) -> str:
    """The path that was refused, if the person typed it; any other may tell more than is to be told."""
    words = {
        str(word) for value in values for word in (value if isinstance(value, list | tuple) else (value,))
    }
    name = refused.filename
    return f" '{name}'" if isinstance(name, str) and name in words else ""


def _refuse(as_json: bool, kind: str, message: str, advice: str, exit_code: int) -> int:  # noqa: FBT001 - private
    print(f"error: {message}\n  try: {advice}", file=sys.stderr)
    if as_json:
        print(json.dumps({"advice": advice, "error": kind, "exit_code": exit_code, "message": message}))
    return exit_code
