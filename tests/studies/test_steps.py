"""Finished work is known by a mark beside its files, and done again if any of them is gone."""

import asyncio

import numpy as np
import pytest

from data_contracts.plan import Lane, RoundPlan
from tasks.local_training.jobs import Centralised, CentralisedResult, Usage
from tasks.rounds.study import Study, compute_once, is_complete, mark_complete, write_contribution
from tasks.studies.arms import train_once

PLAN = RoundPlan(
    run_id="run-1",
    round=1,
    study="counting",
    cohort=("a", "b", "c"),
    threshold=2,
    lanes=(Lane(name="counts", length=3, ring_bits=64, value_bits=40),),
)


class Counting:
    """A study that counts how often it computes."""

    def __init__(self):
        self.times = 0

    async def compute(self, _plan, _inputs, directory):
        self.times += 1
        write_contribution(directory, {"counts": np.array([1, 2, 3])})


def _compute(counting, plan, directory):
    study = Study(name="counting", accept=None, compute=counting.compute, combine=None)
    return asyncio.run(compute_once(study, plan, None, directory, who="a"))


def test_a_complete_contribution_is_found_again_also_by_a_new_attempt(tmp_path):
    counting = Counting()
    assert _compute(counting, PLAN, tmp_path) == "a"
    _compute(counting, PLAN, tmp_path)
    _compute(counting, PLAN.model_copy(update={"attempt": 1, "cohort": ("a", "b")}), tmp_path)
    assert counting.times == 1


@pytest.mark.parametrize("change", [{"round": 2}, {"parameters": {"x": 1}}, {"run_id": "run-2"}])
def test_another_plan_is_computed_anew(tmp_path, change):
    counting = Counting()
    _compute(counting, PLAN, tmp_path)
    _compute(counting, PLAN.model_copy(update=change), tmp_path)
    assert counting.times == 2


@pytest.mark.parametrize("gone", ["counts.npy", "complete"])
def test_a_lost_file_is_computed_anew(tmp_path, gone):
    counting = Counting()
    _compute(counting, PLAN, tmp_path)
    (tmp_path / gone).unlink()
    assert not is_complete(tmp_path, PLAN)
    _compute(counting, PLAN, tmp_path)
    assert counting.times == 2


def test_a_directory_that_moved_away_is_not_complete(tmp_path):
    write_contribution(tmp_path, {"counts": np.array([1, 2, 3])})
    assert not is_complete(tmp_path, PLAN)
    mark_complete(tmp_path, PLAN)
    assert is_complete(tmp_path, PLAN)


def test_an_arm_is_trained_once_and_then_needs_nothing_to_start_from(tmp_path):
    jobs = []

    async def run_job(job):
        jobs.append(job)
        usage = Usage(cpu_seconds=0, wall_seconds=0, peak_rss_bytes=0)
        return CentralisedResult(
            kind="alone", trunk=tmp_path, heads=(), best_epoch=3, history=(), usage=usage
        )

    def make_job():
        return Centralised(
            kind="alone", datasets=(tmp_path,), trunk=tmp_path, head_seeds=(1,), seed=1, output=tmp_path
        )

    def unreachable():
        raise AssertionError("the first model is gone by now")

    first = train_once(tmp_path, make_job, run_job=run_job, what="a/alone")
    again = train_once(tmp_path, unreachable, run_job=run_job, what="a/alone")
    assert asyncio.run(first) == asyncio.run(again) == "a/alone"
    assert len(jobs) == 1
