"""A partner that misses a round goes on with the head of the last round that counted it."""

from types import SimpleNamespace

import pytest

from data_contracts.errors import TooFewPartners
from flows.partner_work import HEAD, OPTIMIZER, Partner, leave_round
from flows.sites import Site

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
    left(partner, 5, counted, study="evaluation")
    assert kept() == []
    assert (partner.counted_before(6) / HEAD).read_bytes() == b"3"


def test_no_update_outlives_its_round(partner):
    left(partner, 1, SURVIVORS)
    left(partner, 1, SURVIVORS)  # as a partner that was killed in between does
    assert not (partner.round_directory(1) / "update.npy").exists()
