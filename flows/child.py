"""``python -m flows.child PARENT COMMAND…``: become a command that dies with its parent.

Why: kill -9 of `motet run` must leave no server behind, and only the kernel survives that.
Runs: on every site. Source: prctl(2), PR_SET_PDEATHSIG; kept across execve(2).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Ask the kernel for SIGKILL when the parent's thread ends, then become the command."""
    parent, *command = arguments
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the kernel was asked
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell on purpose


if __name__ == "__main__":
    main(sys.argv[1:])
