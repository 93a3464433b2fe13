"""kill -9 in the middle of a round: the same command ends with the same bytes."""

import os
import signal
import subprocess
import time

import pytest

from tests.end_to_end.conftest import PATIENCE_SECONDS, command, last_object, motet

pytestmark = pytest.mark.timeout(400)


def await_file(pattern, *, root, process, log):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(root.glob(pattern)):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline
        os.sched_yield()
    return time.monotonic()


def _living(home):
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(home) in line and "flows.cli" in line]


def _killed_when(pattern, run_arguments, home, log):
    """Start the command, and kill -9 as soon as a file of the run appears."""
    with log.open("w") as output:
        process = subprocess.Popen(command(*run_arguments, home=home), stdout=output, stderr=output)
    await_file(pattern, root=home / "runs" / "first", process=process, log=log)
    process.send_signal(signal.SIGKILL)
    process.wait()


MOMENTS = {
    "a masked vector is out": "mailbox/messages/first/r00001-a*/masked/partner-a.json",
    "the run is closed and one report written": "partners/partner-a/results/uplift.json",
}


def test_killed_in_a_round_and_again_at_its_end_the_same_command_ends_with_the_same_model(
    finished, run_arguments, tmp_path
):
    home, log = tmp_path / "motet-home", tmp_path / "log"
    for pattern in MOMENTS.values():
        _killed_when(pattern, run_arguments, home, log)
        assert not (home / "runs" / "first" / "result.json").exists()
    resumed = last_object(motet(*run_arguments, home=home))
    assert resumed["trunk_sha256"] == finished.result["trunk_sha256"]
    assert resumed["consortium"] == finished.result["consortium"]
    assert resumed["partners"] == finished.result["partners"]
    assert not _living(home)
