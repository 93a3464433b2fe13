"""``motet doctor`` finds each fault and says what to do."""

import argparse

import pytest

from data_contracts.errors import SettingsError
from flows.cli import doctor as doctors
from flows.cli.doctor import doctor
from flows.processes import free_port
from flows.settings import RunSettings
from flows.site_run import prepare_run, unfinished_run
from tasks.exchange.https_mailbox import MailboxConnection
from tests.sites import places as made
from tests.sites.places import NOW


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setattr(doctors, "REACH_SECONDS", 0.1)
    monkeypatch.setattr(doctors, "PREFECT_PORT", free_port())
    monkeypatch.setattr(doctors, "MLFLOW_PORT", free_port())
    monkeypatch.setattr(doctors, "LEAST_FREE_BYTES", 0)
    everybody = made.make_all(tmp_path)
    for name in ("a.csv", "s.csv", "t.csv"):
        (tmp_path / name).write_text("")
    made.enrolled(everybody).serve()
    yield everybody
    everybody.close()


def see(places, name):
    return doctor(argparse.Namespace(home=places.site(name).path))


@pytest.mark.parametrize("name", ["partner-a", "coordinator", "mailbox"])
def test_a_healthy_site_needs_nothing(places, name):
    findings = see(places, name)["findings"]
    assert not [finding for finding in findings if finding["advice"]]
    assert {"keys/identity", "disk", "roster", "version of prefect"} <= {each["subject"] for each in findings}
    assert ("clock" in {each["subject"] for each in findings}) == (name != "mailbox")


def _open_key(places, site, root):
    (site.keys / "identity").chmod(0o644)


def _expired(places, site, root):
    (site.path / "policy.json").write_text(made.policy(expires=NOW).model_dump_json())


def _nothing_granted(places, site, root):
    (site.path / "policy.json").write_text(made.policy(data_sets=()).model_dump_json())


def _no_file(places, site, root):
    (root / "a.csv").unlink()


def _no_mailbox(places, site, root):
    places.service.shutdown()
    places.service.server_close()


def _no_roster(places, site, root):
    (site.path / "roster.json").unlink()


FAULTS = {
    "keys/identity": (_open_key, "chmod go="),
    "policy": (_expired, "later `expires`"),
    "granted": (_nothing_granted, "name the agreed data sets"),
    "activities": (_no_file, "site.json"),
    "mailbox": (_no_mailbox, "motet doctor"),
    "mailbox ": (_no_roster, "motet roster accept"),
}


@pytest.mark.parametrize("subject", FAULTS)
def test_a_fault_is_named_with_what_to_do(places, subject, tmp_path):
    fault, advice = FAULTS[subject]
    fault(places, places.site("partner-a"), tmp_path)
    with pytest.raises(SettingsError, match=f"1 of .* need you: {subject.strip()}") as found:
        see(places, "partner-a")
    assert advice in found.value.advice


def test_a_clock_that_is_wrong_is_found(places, monkeypatch):
    monkeypatch.setattr(MailboxConnection, "clock", lambda _: 0.0)
    with pytest.raises(SettingsError, match="need you: clock"):
        see(places, "partner-a")


def test_a_coordinator_takes_up_its_newest_unfinished_run(places):
    home = places.site("coordinator")
    with pytest.raises(SettingsError, match="'coordinator' has no unfinished run"):
        unfinished_run(home)
    study = {"simulated_assays": True, "listed": ["b", "a"], "now": NOW}
    settings = RunSettings(data="qsar-2026", partners=3, pooled_arm=False)
    run = prepare_run(home, settings, run_id="first", **study)
    assert unfinished_run(home) == run == prepare_run(home, settings, run_id="first", **study)
    with pytest.raises(SettingsError, match="exists with another catalogue"):
        prepare_run(home, settings, run_id="first", **(study | {"listed": []}))
    run.write_result({})
    with pytest.raises(SettingsError, match="has no unfinished run"):
        unfinished_run(home)
