"""Real child processes: same bytes, real kills, no orphans, no data in messages."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from data_contracts.errors import ContractViolation, UpdateMismatch, WorkFailed
from tasks.local_training.jobs import Centralised, LocalSteps, TrainingSettings
from tasks.local_training.parameters import initial_trunk, write_parameters
from tasks.local_training.training import train
from tasks.local_training.worker_process import TrainingProcess
from tests.local_training.conftest import HIDDEN, rewrite, write_prepared

PATIENCE_SECONDS = 60


@pytest.fixture
def job(prepared, tmp_path):
    write_parameters(tmp_path / "trunk", initial_trunk(HIDDEN, seed=1))
    return LocalSteps(
        dataset=prepared,
        trunk=tmp_path / "trunk",
        head_seed=2,
        seed=3,
        settings=TrainingSettings(batch_size=16),
        output=tmp_path / "child",
    )


@pytest.fixture
def endless(job, tmp_path):
    """A job that no test waits for: 1,000 epochs of batches of one."""
    return Centralised(
        kind="alone",
        datasets=(job.dataset,),
        trunk=job.trunk,
        head_seeds=(1,),
        seed=1,
        max_epochs=1000,
        settings=TrainingSettings(batch_size=1),
        output=tmp_path / "endless",
    )


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_gone(pid: int) -> bool:
    """Wait for the end of a process that is not ours, without polling."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            return bool(select.select([handle], [], [], PATIENCE_SECONDS)[0])
        finally:
            os.close(handle)
    return True


async def _child_of(process: TrainingProcess) -> int:
    """The first child of the template, as soon as there is one; the kernel tells nobody about a grandchild."""
    pid = process._process.pid
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not _children(pid):
            await asyncio.to_thread(os.sched_yield)
    return _children(pid)[0]


def _proc(process: TrainingProcess, name: str) -> str:
    return Path(f"/proc/{process._process.pid}/{name}").read_text()


def test_a_child_gives_the_bytes_of_the_calling_process_and_its_errors_keep_their_branch(job, tmp_path):
    train(job.model_copy(update={"output": tmp_path / "here"}))

    async def scenario():
        async with TrainingProcess() as process:
            jobs = [job, job.model_copy(update={"output": tmp_path / "again"})]
            results = await asyncio.gather(
                *(process.run(each, timeout_seconds=PATIENCE_SECONDS) for each in jobs)
            )
            missing = job.model_copy(update={"trunk": tmp_path / "nowhere"})
            with pytest.raises(UpdateMismatch, match="'nowhere' is no readable"):
                await process.run(missing, timeout_seconds=PATIENCE_SECONDS)
            rewrite(job.dataset / "endpoints.arrow", in_training=pa.array([False] * 5))
            with pytest.raises(ContractViolation, match="no labelled structure"):
                await process.run(job, timeout_seconds=PATIENCE_SECONDS)
            assert "Threads:\t1\n" in _proc(process, "status"), "a fork of a threaded process may deadlock"
            assert _proc(process, "limits").split("Max core file size")[1].split()[:2] == ["0", "0"]
            return results

    results = asyncio.run(scenario())
    for name in ("update.npy", "head.safetensors"):
        expected = (tmp_path / "here" / name).read_bytes()
        assert (tmp_path / "child" / name).read_bytes() == expected
        assert (tmp_path / "again" / name).read_bytes() == expected
    assert results[0].usage.peak_rss_bytes > 50 * 2**20
    assert (tmp_path / "child" / "head.safetensors").stat().st_mode & 0o077 == 0, "private to the owner"


def test_timeout_and_cancellation_kill_the_child_and_the_process_serves_on(job, endless):
    async def scenario():
        async with TrainingProcess() as process:
            running = asyncio.create_task(process.run(endless, timeout_seconds=PATIENCE_SECONDS))
            child = await _child_of(process)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert _is_gone(child)
            with pytest.raises(WorkFailed, match=r"'alone' took longer than 0\.2 s and was ended"):
                await process.run(endless, timeout_seconds=0.2)
            assert not _children(process._process.pid)
            killed = asyncio.create_task(process.run(endless, timeout_seconds=PATIENCE_SECONDS))
            os.kill(await _child_of(process), signal.SIGKILL)
            with pytest.raises(WorkFailed, match="'alone' was ended by SIGKILL"):
                await killed
            return await process.run(job, timeout_seconds=PATIENCE_SECONDS)

    assert asyncio.run(scenario()).n_steps == 4


def test_a_job_beyond_its_memory_fails_by_name_and_a_lost_template_takes_its_children_along(
    job, endless, tmp_path
):
    write_parameters(tmp_path / "wide", initial_trunk(512, seed=1))  # 64 MiB

    async def scenario():
        async with TrainingProcess(memory_limit_bytes=48 * 2**20) as process:
            with pytest.raises(WorkFailed, match="'local_steps' ran out of memory"):
                await process.run(
                    job.model_copy(update={"trunk": tmp_path / "wide"}), timeout_seconds=PATIENCE_SECONDS
                )
            running = asyncio.create_task(process.run(endless, timeout_seconds=PATIENCE_SECONDS))
            child = await _child_of(process)
            process._process.kill()
            with pytest.raises(WorkFailed, match="training process is gone"):
                await running
            assert _is_gone(child)
            with pytest.raises(WorkFailed, match="training process is gone"):
                await process.run(job, timeout_seconds=PATIENCE_SECONDS)

    asyncio.run(scenario())


def test_no_process_survives_the_kill_of_its_parent(endless, tmp_path):
    (tmp_path / "job.json").write_text(endless.model_dump_json())
    script = f"""
import asyncio
from pathlib import Path
from tasks.local_training.jobs import Centralised
from tasks.local_training.worker_process import TrainingProcess

async def main():
    job = Centralised.model_validate_json(Path({str(tmp_path / "job.json")!r}).read_text())
    async with TrainingProcess() as process:
        running = asyncio.create_task(process.run(job, timeout_seconds=600))
        pid = process._process.pid
        children = Path(f"/proc/{{pid}}/task/{{pid}}/children")
        while not children.read_text().split():
            await asyncio.sleep(0.01)
        print(pid, children.read_text().split()[0], flush=True)
        await running

asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    with parent:
        template, child = map(int, parent.stdout.readline().split())
        parent.kill()
    assert _is_gone(template)
    assert _is_gone(child)


def test_a_process_that_was_not_started_says_so(job):
    with pytest.raises(WorkFailed, match="was not started"):
        asyncio.run(TrainingProcess().run(job, timeout_seconds=1))


def test_a_foreign_error_leaves_without_its_text(tmp_path, monkeypatch):
    from tasks.local_training import worker

    def fail(_, **__):
        raise ValueError("CCO is secret")

    monkeypatch.setattr(worker, "train", fail)
    write_prepared(tmp_path / "d", seed=0, n_structures=5)
    job = LocalSteps(dataset=tmp_path / "d", trunk=tmp_path, head_seed=1, seed=1, output=tmp_path)
    answer = worker._answer(job.model_dump(mode="json"), {})
    assert answer["failed"]["type"] == "WorkFailed"
    assert "ValueError" in answer["failed"]["message"]
    assert "CCO" not in str(answer)
