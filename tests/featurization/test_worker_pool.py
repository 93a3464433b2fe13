"""The pool: right answers in order, and no molecule lost because of another one."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from data_contracts.errors import WorkFailed
from tasks.featurization import worker_pool
from tasks.featurization.worker import ANSWER, Featurizer, Options, decode_frame, encode_frame
from tasks.featurization.worker_pool import Deadlines, WorkerPool
from tests.featurization.faulty_worker import ENDLESS, FATAL, NONSENSE
from tests.featurization.partner import wehi_molecules

FAULTY = (sys.executable, "-P", str(Path(__file__).with_name("faulty_worker.py")))
QUICK = Deadlines(start_seconds=60.0, chunk_seconds=1.0, seconds_per_structure=0.01)
OUTLIVED_SECONDS = 20.0


def here(smiles):
    """Featurize in this process."""
    return Featurizer(Options())(smiles)


def chunks_of(smiles, size):
    array = pa.array(smiles, pa.string())
    return [array.slice(start, size) for start in range(0, len(array), size)]


def joined(batches):
    return pa.Table.from_batches(batches, schema=ANSWER).combine_chunks()


def processes_of(pool):
    return [worker._process for worker in pool._workers.values()]


def test_answers_are_those_of_one_process_in_the_order_of_the_chunks():
    smiles = [*wehi_molecules(120), "C(", "*C", "", "[Na+].[Cl-]"]
    with WorkerPool(2) as pool:
        answers = list(pool.map(chunks_of(smiles, 10)))
        processes = processes_of(pool)
    assert [answer.num_rows for answer in answers] == [10] * 12 + [4]
    assert joined(answers).equals(joined([here(smiles)]))
    assert all(process.poll() is not None for process in processes)


def test_structures_that_abort_or_hang_are_lost_alone():
    smiles = wehi_molecules(12)
    smiles[1], smiles[5], smiles[7] = FATAL, ENDLESS, NONSENSE
    with WorkerPool(2, deadlines=QUICK, command=FAULTY) as pool:
        answers = joined(list(pool.map(chunks_of(smiles, 2))))
    lost = {1: "crashed", 5: "timeout", 7: "crashed"}
    assert {place: answers.column("reason")[place].as_py() for place in lost} == lost
    kept = [place for place in range(12) if place not in lost]
    assert answers.take(kept).equals(joined([here(smiles)]).take(kept))
    assert answers.column("bits").null_count == 0


def test_a_worker_killed_from_outside_costs_no_molecule():
    smiles = wehi_molecules(60)
    with WorkerPool(2) as pool:
        answers = []
        for number, answer in enumerate(pool.map(chunks_of(smiles, 6))):
            answers.append(answer)
            if number in {1, 4}:
                next(worker for worker in pool._workers.values() if worker.is_ready)._process.kill()
    assert joined(answers).equals(joined([here(smiles)]))


def test_a_worker_that_cannot_start_is_named():
    command = (sys.executable, "-P", "-c", "raise SystemExit(3)")
    with (
        WorkerPool(1, command=command) as pool,
        pytest.raises(WorkFailed, match=r"featurization worker 1 .*status 3"),
    ):
        list(pool.map(chunks_of(["CCO"], 1)))


def test_a_worker_that_never_answers_is_named():
    command = (sys.executable, "-P", "-c", "input()")
    quick = Deadlines(start_seconds=0.2)
    with (
        WorkerPool(1, deadlines=quick, command=command) as pool,
        pytest.raises(WorkFailed, match=r"featurization worker 1 could not start .*SIGKILL"),
    ):
        list(pool.map(chunks_of(["CCO"], 1)))


def test_a_program_that_is_missing_is_a_named_failure():
    with pytest.raises(WorkFailed, match="featurization worker 1 could not start: No such file"):
        WorkerPool(2, command=("/nonexistent/python",)).__enter__()


def test_workers_that_die_over_many_structures_are_a_failure_not_a_quarantine(monkeypatch):
    monkeypatch.setattr(worker_pool, "MAX_LOST", 1)
    with (
        WorkerPool(1, deadlines=QUICK, command=FAULTY) as pool,
        pytest.raises(WorkFailed, match=r"over 2 structures, at most 1 .*featurization worker 1 .*SIGABRT"),
    ):
        list(pool.map(chunks_of([FATAL] * 2, 1)))


def test_leaving_in_the_middle_of_a_chunk_ends_the_workers():
    processes = []

    def interrupted():
        with WorkerPool(2, command=FAULTY) as pool:
            next(pool.map([*chunks_of(wehi_molecules(4), 2), *chunks_of([ENDLESS] * 3, 1)]))
            processes.extend(processes_of(pool))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [process.poll() for process in processes] == [-signal.SIGKILL] * 2


STARTER = """
import sys, time
import pyarrow as pa
from tasks.featurization.worker_pool import WorkerPool
pool = WorkerPool(2, command=sys.argv[1:]).__enter__()
answers = pool.map([pa.array(["CCO"]), pa.array(["CCN"]), *[pa.array(["CCC"])] * 3])
next(answers), next(answers)
print(*(worker._process.pid for worker in pool._workers.values()), flush=True)
next(answers)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
def test_workers_die_with_their_starter_also_in_the_middle_of_a_chunk():
    starter = subprocess.Popen([sys.executable, "-P", "-c", STARTER, *FAULTY], stdout=subprocess.PIPE)
    with starter:
        workers = [os.pidfd_open(int(pid)) for pid in starter.stdout.readline().split()]
        starter.kill()
        starter.wait()
    for worker in workers:
        assert select.select([worker], [], [], OUTLIVED_SECONDS)[0] == [worker]
        os.close(worker)
    assert len(workers) == 2


@pytest.mark.parametrize("cut", [0, 5, 8, 100])
def test_half_a_frame_waits_for_its_rest(cut):
    frame = encode_frame(here(["CCO", "C("]))
    assert decode_frame(frame[:cut]) is None
    batch, size = decode_frame(frame + b"more")
    assert size == len(frame)
    assert batch.column("reason").to_pylist() == [None, "parse"]
