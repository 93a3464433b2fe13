"""Files that appear whole or not at all.

Why: kill -9 at any line must leave either nothing or the finished file; the first writer wins.
Runs: anywhere. Source: own; ``link(2)`` fails if the name exists, ``rename(2)`` replaces in one step.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from typing_extensions import Buffer

SCRAP_PREFIX = ".part-"


@contextlib.contextmanager
def _temporary(directory: Path) -> Iterator[tuple[int, str]]:
    """An open file under a passing name, as few system calls as it takes: each lets another thread run, and waits for it."""
    try:  # mode 0600: secrets are written here too
        handle, name = tempfile.mkstemp(dir=directory, prefix=SCRAP_PREFIX)
    except FileNotFoundError:
        directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=directory, prefix=SCRAP_PREFIX)
    try:
        yield handle, name
    finally:
        try:
            os.close(handle)
        finally:
            with contextlib.suppress(FileNotFoundError):  # renamed
                os.unlink(name)  # noqa: PTH108 - a path object costs more than the call


def _fill(handle: int, chunks: Iterable[Buffer]) -> None:
    for chunk in chunks:
        if not (view := memoryview(chunk)).nbytes:
            continue
        left = view.cast("B")
        while left:
            left = left[os.write(handle, left) :]
    os.fsync(handle)


def create_once(path: Path, chunks: Iterable[Buffer]) -> bool:
    """Write a file unless the name is taken.

    Args:
        path: Final name; its directory is created.
        chunks: Content, in order.

    Returns:
        True if this call created the file, False if it existed (whatever it holds).
    """
    with _temporary(path.parent) as (handle, name):
        _fill(handle, chunks)
        try:
            os.link(name, path)
        except FileExistsError:
            return False
        _sync_directory(path.parent)
        return True


def replace_whole(path: Path, chunks: Iterable[Buffer]) -> None:
    """Write a file in one step over whatever stood there."""
    with _temporary(path.parent) as (handle, name):
        _fill(handle, chunks)
        Path(name).replace(path)
        _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
