"""Processes that motet starts: recognised, never confused, stopped with all their children."""

import contextlib
import dataclasses
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.errors import SettingsError
from flows import processes

SLEEP = [sys.executable, "-c", "import signal; print('ready', flush=True); signal.pause()"]
STUBBORN = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("grandchild", os.getpid(), flush=True)
    signal.pause()
signal.pause()
"""


def wait_until_gone(pid, *, seconds=20):
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            return bool(select.select([handle], [], [], seconds)[0])
        finally:
            os.close(handle)
    return True


def read_line(log, *, starting):
    """Wait for a line of a log by following it with `tail`, which ends with the line."""
    follow = subprocess.run(
        ["timeout", "20", "sh", "-c", f"tail -n +1 -F '{log}' 2>/dev/null | grep -m1 '^{starting}'"],
        capture_output=True,
        text=True,
        check=True,
    )
    return follow.stdout.strip()


def start(command, log, *, detached=True):
    process = processes.identify(
        processes.launch(command, environment={}, log=log, detached=detached), port=None
    )
    assert process is not None
    return process


def test_a_process_with_another_start_time_is_a_stranger_and_is_never_signalled(tmp_path):
    process = start(SLEEP, tmp_path / "log")
    stranger = dataclasses.replace(process, started=process.started + 1)
    other_boot = dataclasses.replace(process, boot="another")
    processes.stop(stranger, grace_seconds=0)
    processes.stop(other_boot, grace_seconds=0)
    assert (stranger.runs(), other_boot.runs(), process.runs()) == (False, False, True)
    processes.stop(process, grace_seconds=20)
    assert not process.runs()


def test_stop_leaves_no_descendant_even_if_all_ignore_the_polite_signal(tmp_path):
    process = start([sys.executable, "-c", STUBBORN], tmp_path / "log")
    grandchild = processes.identify(int(read_line(tmp_path / "log", starting="grandchild").split()[1]))
    assert grandchild in processes.descendants(process)
    assert os.getpgid(grandchild.pid) != os.getpgid(process.pid)
    processes.stop(process, grace_seconds=0.1)
    assert not process.runs()
    assert not grandchild.runs()


@pytest.mark.parametrize(("detached", "survives"), [(False, False), (True, True)])
def test_only_a_detached_process_survives_the_kill_of_its_parent(tmp_path, detached, survives):
    log = tmp_path / "child.log"
    source = (
        "import signal, sys; from pathlib import Path; from flows import processes\n"
        f"pid = processes.launch({SLEEP!r}, environment={{}}, log=Path({str(log)!r}), detached={detached})\n"
        "print(pid, flush=True); signal.pause()"
    )
    parent = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    with parent, parent.stdout:
        child = processes.identify(int(parent.stdout.readline()))
        read_line(log, starting="ready")
        parent.kill()
    if survives:
        assert child.runs()
        processes.stop(child, grace_seconds=20)
    assert wait_until_gone(child.pid)
    assert not child.runs()


def test_a_child_whose_parent_died_before_it_could_ask_the_kernel_ends_itself(tmp_path):
    gone = subprocess.run(
        [sys.executable, "-P", "-m", "flows.child", "1", sys.executable, "-c", "print('ran')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (gone.returncode, gone.stdout) == (1, "")


def test_a_taken_port_is_refused_by_its_number_with_what_to_do():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"port {port} for MLflow cannot be used") as refused:
            processes.require_free(port, what="MLflow", option="--mlflow-port")
    assert "--mlflow-port" in refused.value.advice
    processes.require_free(processes.free_port(), what="MLflow", option="--mlflow-port")


def test_how_a_child_ended_is_said(tmp_path):
    pid = processes.launch(
        [sys.executable, "-c", "raise SystemExit(7)"], environment={}, log=tmp_path / "log", detached=True
    )
    assert wait_until_gone(pid)
    assert processes.exit_code(pid) == 7
    assert processes.identify(pid) is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.builds(
        processes.Process,
        pid=st.integers(1, 2**22),
        started=st.integers(0, 2**63),
        boot=st.uuids().map(str),
        port=st.none() | st.integers(1, 65535),
    ),
    st.integers(1, 60),
)
def test_a_record_is_read_back_whole_or_not_at_all(tmp_path, process, kept):
    path = tmp_path / "record.json"
    processes.write_record(path, process)
    whole = path.read_bytes()
    assert processes.read_record(path) == process
    path.write_bytes(whole[: min(kept, len(whole) - 1)])
    assert processes.read_record(path) is None


def test_a_missing_record_is_no_process(tmp_path):
    assert processes.read_record(tmp_path / "none.json") is None


def test_our_own_start_is_the_kernels_field_22():
    own = processes.identify(os.getpid())
    fields = Path(f"/proc/{os.getpid()}/stat").read_text().split()  # our name holds no blank
    assert own.started == int(fields[21])
    assert own.runs()
