"""A partner that misses a round goes on with the head of the last round that counted it."""

import asyncio
import dataclasses
from types import SimpleNamespace

import pytest

from data_contracts.errors import TooFewPartners, UpdateMismatch
from flows import partner_work
from flows.federated_training import training_parameters
from flows.leaving import leave_round, leave_training
from flows.partner_work import HEAD, OPTIMIZER, Partner
from flows.settings import settings_from
from flows.sites import Site
from tasks.featurization.preparation_rules import rules_of

SURVIVORS = ["partner-b", "partner-c"]


@pytest.fixture
def partner(tmp_path):
    site = Site(name="partner-a", root=tmp_path)
    partner = Partner(site=site, board=None, files=None, rules=None, run_job=None)
    for number in (1, 2, 3):
        directory = partner.round_directory(number)
        directory.mkdir(parents=True)
        for name in (HEAD, OPTIMIZER):
            (directory / name).write_bytes(b"%d" % number)
        (directory / "update.npy").write_bytes(b"")
    return partner


def left(partner, number, survivors, *, study="qsar-training"):
    plan = SimpleNamespace(round=number, study=study)
    leave_round(partner, plan, {"survivors": survivors}, None)


def test_the_head_of_a_round_that_did_not_count_a_partner_is_not_built_upon(partner):
    left(partner, 1, [*SURVIVORS, "partner-a"])
    left(partner, 2, SURVIVORS)
    assert (partner.counted_before(3) / HEAD).read_bytes() == b"1"
    left(partner, 3, [*SURVIVORS, "partner-a"])
    assert (partner.counted_before(4) / HEAD).read_bytes() == b"3"


def test_a_partner_that_no_round_has_counted_has_no_head_yet(partner):
    for number in (1, 2, 3):
        left(partner, number, SURVIVORS)
    assert partner.counted_before(4) is None
    with pytest.raises(TooFewPartners, match="counted in no round"):
        partner.demand_head(after_round=3)


def test_an_optimizer_goes_with_its_head_and_older_ones_go_when_nothing_can_ask_for_them(partner):
    def kept():
        return [n for n in (1, 2, 3) if (partner.round_directory(n) / OPTIMIZER).exists()]

    counted = [*SURVIVORS, "partner-a"]
    left(partner, 1, counted)
    left(partner, 2, SURVIVORS)
    assert kept() == [1, 3]
    left(partner, 3, counted)
    assert kept() == [1, 3]  # a repeated round 3 would open with it
    left(partner, 4, counted)
    assert kept() == [3]
    left(partner, 5, SURVIVORS, study="evaluation")
    leave_training(partner)
    assert kept() == []
    assert (partner.counted_before(6) / HEAD).read_bytes() == b"3"


@pytest.fixture
def asked_of(partner, monkeypatch):
    """What a round's training is given, as far as that is the partner's own."""
    partner = dataclasses.replace(partner, rules=rules_of("simple"))
    parameters = training_parameters(settings_from({}))
    training = partner_work.Training(SimpleNamespace(accept=lambda _: None), lambda _: parameters)
    given = []

    async def local_training(*_, inputs, **__):
        given.append(inputs)

    monkeypatch.setitem(partner_work.TRAINING, "qsar-training", training)
    monkeypatch.setattr(partner_work, "local_training", local_training)
    monkeypatch.setattr(Partner, "trunk", lambda *_: None)

    def asked(number):
        plan = SimpleNamespace(round=number, study="qsar-training", model_in="a model")
        asyncio.run(partner_work.work_on(partner, plan, None, directory=None))
        return given[-1]

    return asked


def test_a_round_builds_on_head_and_optimizer_of_the_last_one_that_counted_the_partner(partner, asked_of):
    left(partner, 2, [*SURVIVORS, "partner-a"])
    left(partner, 3, SURVIVORS)
    counted = partner.round_directory(2)
    inputs = asked_of(4)
    assert (inputs.head, inputs.optimizer) == (counted / HEAD, counted / OPTIMIZER)
    (counted / OPTIMIZER).unlink()  # as with a run that another version began
    with pytest.raises(UpdateMismatch, match="head of round 2 without what the optimizer remembered"):
        asked_of(4)


def test_the_first_round_builds_on_nothing(asked_of):
    inputs = asked_of(1)
    assert (inputs.head, inputs.optimizer) == (None, None)


def test_no_update_outlives_its_round(partner):
    left(partner, 1, SURVIVORS)
    left(partner, 1, SURVIVORS)  # as a partner that was killed in between does
    assert not (partner.round_directory(1) / "update.npy").exists()
