"""Two coordinators that hold the same keys: one leads, the other is told so."""

import asyncio
import shutil
from datetime import UTC, datetime

import pytest

from data_contracts.envelope import Kind
from data_contracts.errors import SettingsError
from flows.enrolment import join_consortium
from flows.leadership import claim_run, mark_of, take_over
from flows.settings import RunSettings
from flows.site_directory import SiteDirectory
from flows.site_run import _lead, prepare_run
from tests.sites import places as made
from tests.sites.places import PARTNERS

SETTINGS = RunSettings(data="qsar-2026", partners=3, hidden=64, pooled_arm=False)


@pytest.fixture
def places(tmp_path):
    everybody = made.enrolled(made.make_all(tmp_path))
    everybody.serve()
    yield everybody
    everybody.close()


@pytest.fixture
def copied(places, tmp_path):
    """The coordinator's directory, copied to another machine."""
    shutil.copytree(places.site("coordinator").path, tmp_path / "restored")
    places.sites["restored"] = SiteDirectory(tmp_path / "restored")
    return places.site("restored")


def claim(site, run_id):
    claim_run(site, site.board(run_id))


@pytest.mark.parametrize("run_id", ["first", "second"])
def test_a_second_coordinator_is_refused_by_name_whichever_run_it_leads(places, copied, run_id):
    claim(places.site("coordinator"), "first")
    claim(places.site("coordinator"), "first")  # a restart
    with pytest.raises(SettingsError, match="leads run 'first' from another machine or directory") as refused:
        claim(copied, run_id)
    assert "--take-over" in refused.value.advice


def test_nothing_is_said_to_the_partners_by_the_second(places, copied):
    for name in PARTNERS:
        asyncio.run(join_consortium(places.site(name)))
    claim(places.site("coordinator"), "first")
    run = prepare_run(
        copied, SETTINGS, run_id="second", simulated_assays=False, listed=[], now=datetime.now(UTC)
    )
    with pytest.raises(SettingsError, match="leads run 'first'"):
        asyncio.run(_lead(copied, run))
    assert not places.site("partner-a").open_board("second").was_said(Kind.RUN_OPENED, "coordinator")


def test_a_closed_run_hinders_nobody(places, copied):
    claim(places.site("coordinator"), "first")
    places.site("coordinator").board("first").post_json(Kind.RUN_CLOSED, {})
    claim(copied, "second")


def test_a_person_may_say_that_the_first_has_ended(places, copied):
    claim(places.site("coordinator"), "first")
    run = prepare_run(
        copied, SETTINGS, run_id="first", simulated_assays=False, listed=[], now=datetime.now(UTC)
    )
    take_over(copied, run)
    claim(copied, "first")
    claim(copied, "first")


def test_a_mark_tells_nobody_else_where_a_site_lies(places, copied):
    site = places.site("coordinator")
    assert mark_of(site) != mark_of(copied)
    assert mark_of(site) != mark_of(places.site("partner-a"))
