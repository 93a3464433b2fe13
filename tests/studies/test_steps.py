"""A study's finished work is found again by what decides it, and by nothing private."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.plan import Lane, RoundPlan
from tasks.local_training.jobs import Centralised
from tasks.studies.steps import evaluation, local_training, train_without_federation

seeds = st.integers(0, 2**62 - 1)  # as sites derive them; JSON numbers end at 2**53
PLAN = RoundPlan(
    run_id="run-1",
    round=1,
    study="qsar-training",
    cohort=("a", "b", "c"),
    threshold=2,
    lanes=(Lane(name="counts", length=3, ring_bits=64, value_bits=40),),
)


def key_of(step, **arguments):
    return step.cache_key_fn(SimpleNamespace(task=step), arguments)


def centralised(*, seed=1, kind="alone", output="/out"):
    return Centralised(
        kind=kind,
        datasets=(Path("/data"),),
        trunk=Path("/trunk"),
        head_seeds=(seed,),
        seed=seed,
        output=Path(output),
    )


@given(one=seeds, other=seeds)
def test_the_key_of_an_arm_exists_for_every_seed_and_tells_nothing_of_it_or_of_paths(one, other):
    keys = {
        key_of(
            train_without_federation,
            run_id="run-1",
            who="partner-a",
            job=centralised(seed=seed, output=f"/home/{seed}"),
            run_job=None,
        )
        for seed in (one, other)
    }
    assert len(keys) == 1
    assert "/" not in keys.pop()


def test_arms_of_other_runs_and_parties_have_keys_of_their_own():
    job = centralised()
    keys = {
        key_of(train_without_federation, run_id=run_id, who=who, job=job, run_job=None)
        for run_id in ("run-1", "run-2")
        for who in ("partner-a", "partner-b", "simulation")
    }
    assert len(keys) == 6


@pytest.mark.parametrize("step", [local_training, evaluation], ids=lambda step: step.name)
def test_a_round_is_found_by_partner_and_plan_wherever_its_directory_lies(step):
    def key(partner="a", plan=PLAN, directory="/one"):
        return key_of(step, partner=partner, plan=plan, inputs=object(), directory=Path(directory))

    assert key(directory="/one") == key(directory="/other")
    changes = [
        {"partner": "b"},
        *({"plan": PLAN.model_copy(update=u)} for u in ({"round": 2}, {"attempt": 1})),
    ]
    assert len({key(), *(key(**change) for change in changes)}) == 4
