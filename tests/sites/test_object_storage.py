"""Sites whose mailbox is a bucket: they enrol, share secrets and are looked after like any others."""

import argparse
import asyncio
import json
import sys

import pytest

from data_contracts.envelope import Kind
from data_contracts.errors import MotetError, SettingsError, WorkFailed
from flows.cli import doctor as doctors
from flows.cli.doctor import doctor
from flows.enrolment import await_acceptance, join_consortium
from flows.processes import free_port
from flows.run_keys import share_run_key
from tasks.exchange import object_mailbox
from tests.exchange.s3_server import make_bucket, serving_s3
from tests.sites import places as made
from tests.sites.places import PARTNERS

SECRET = "the-secret-of-this-site"  # noqa: S105 - of sites that end with the test


@pytest.fixture(scope="module")
def s3():
    with serving_s3() as address:
        yield address


@pytest.fixture
def places(s3, tmp_path, request, monkeypatch):
    for name, value in (("PREFECT_PORT", free_port()), ("MLFLOW_PORT", free_port()), ("LEAST_FREE_BYTES", 0)):
        monkeypatch.setattr(doctors, name, value)
    monkeypatch.setattr(doctors, "REACH_SECONDS", 0.1)
    everybody = made.make_around(tmp_path, f"s3://{make_bucket(s3, request.node.nodeid)}/consortium/one")
    for name in ("a.csv", "s.csv", "t.csv"):
        (tmp_path / name).write_text("")
    for site in everybody.sites.values():
        give(site, endpoint=s3)
    yield made.enrolled(everybody)
    everybody.close()


def give(site, **changed):
    given = {"region": "us-east-1", "access_key_id": "a", "secret_access_key": SECRET, **changed}
    path = site.keys / "s3.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(given))


def see(site):
    return doctor(argparse.Namespace(home=site.path))


def test_partners_join_and_share_a_runs_key_over_a_bucket(places):
    for name in PARTNERS:
        asyncio.run(join_consortium(places.site(name)))
    coordinator = places.site("coordinator")
    asyncio.run(await_acceptance(coordinator))
    share_run_key(
        coordinator.open_board("first"), key=coordinator.run_key("first"), roster=coordinator.roster
    )
    board = coordinator.board("first")
    board.post_json(Kind.RUN_OPENED, {"hidden": 16})
    model = board.mailbox.blobs.put([b"a model of all"], contract="trunk@1")

    for name in PARTNERS:
        received = places.site(name).board("first")
        assert received.read(Kind.RUN_OPENED, "coordinator").json() == {"hidden": 16}
        assert bytes(received.mailbox.blobs.open(model, who="coordinator")) == b"a model of all"
    lying = b"".join(_everything(coordinator.connection.store))
    assert b"hidden" not in lying
    assert b"a model of all" not in lying
    assert model.sha256.encode() not in lying


def _everything(store):
    for listed in store.list():
        for each in listed:
            yield each["path"].encode() + bytes(store.get(each["path"]).bytes())


@pytest.mark.parametrize("name", ["partner-a", "coordinator"])
def test_a_healthy_site_needs_nothing(places, name):
    findings = see(places.site(name))["findings"]
    assert not [finding for finding in findings if finding["advice"]]
    said = {each["subject"]: each["found"] for each in findings}
    assert said["mailbox"].startswith("answers at s3://")
    assert not list(_everything(places.site(name).connection.store)), "the doctor's probe is gone"


def _overwrites(site, monkeypatch):
    put = object_mailbox.obstore.put

    def overwrite(*given, mode=None, **more):
        return put(*given, **more)

    monkeypatch.setattr(object_mailbox.obstore, "put", overwrite)


def _no_bucket(site, monkeypatch):
    settings = json.loads((site.path / "site.json").read_text()) | {"mailbox": "s3://nowhere"}
    (site.path / "site.json").write_text(json.dumps(settings))


def _away(site, monkeypatch):
    give(site, endpoint=f"http://127.0.0.1:{free_port()}")


def _readable_secret(site, monkeypatch):
    (site.keys / "s3.json").chmod(0o644)


def _wrong_field(site, monkeypatch):
    give(site, secret=SECRET)


def _not_installed(site, monkeypatch):
    monkeypatch.delitem(sys.modules, "tasks.exchange.object_mailbox")
    monkeypatch.setitem(sys.modules, "obstore", None)


FAULTS = {
    "a store that overwrites": (_overwrites, "ignores If-None-Match"),
    "no such bucket": (_no_bucket, "there is no bucket behind s3://nowhere"),
    "a store that is away": (_away, "did not answer"),
    "a secret that others can read": (_readable_secret, "readable by others"),
    "an unknown field": (_wrong_field, "no object of texts"),
    "no client": (_not_installed, "`obstore` is not installed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_doctor_names_each_fault_of_a_bucket_and_no_secret(places, fault, monkeypatch, capsys):
    site, (make, expected) = places.site("partner-b"), FAULTS[fault]
    make(site, monkeypatch)
    with pytest.raises(SettingsError):
        see(site)
    shown = capsys.readouterr().out
    assert expected in shown
    assert SECRET not in shown


def test_a_site_names_one_mailbox(places, tmp_path):
    mailboxes = made.make_all(tmp_path / "other")
    made.enrolled(mailboxes)
    site = mailboxes.site("partner-a")
    settings = json.loads((site.path / "site.json").read_text()) | {"mailbox": "s3://bucket"}
    (site.path / "site.json").write_text(json.dumps(settings))
    with pytest.raises(SettingsError, match="name two mailboxes"):
        made.SiteDirectory(site.path).connect(outage_seconds=1)


def test_an_outage_of_a_store_ends_in_a_pause_and_then_in_a_named_error(places):
    pauses = []
    site = places.site("partner-c")
    give(site, endpoint=f"http://127.0.0.1:{free_port()}")
    bucket = site.connect(outage_seconds=60)
    bucket._pause = pauses.append
    with pytest.raises(WorkFailed, match="did not answer for 60 s") as failed:
        bucket.size("blobs/x")
    assert isinstance(failed.value, MotetError)
    assert 60 <= sum(pauses) < 70
