"""Three partners, a coordinator and a mailbox as separate processes, started by the guide's own commands.

One of them is killed in the middle of a round, then the mailbox, and the run ends with the model that everybody on
one machine would have trained.
"""

import json
import shutil

import pytest

from tests.sites.hosts import (
    PARTNERS,
    accept_everywhere,
    begin,
    enrol,
    first_commands,
    guide_command,
    guide_commands,
    last_object,
    own_structures,
)
from tests.sites.operator import assert_the_operator_reads_nothing

pytestmark = pytest.mark.timeout(1800)
OTHERS = ("mailbox", "auditor", *PARTNERS)
MOST_COMMANDS = 15


@pytest.fixture(scope="module")
def hosts(reference, dataset, make_hosts):
    """The guide from its first command to its last, with mishaps on the way."""
    hosts = make_hosts()
    enrol(hosts, dataset, same_secrets_as=reference[1], others=OTHERS, asks=("partner-b",))
    serve, join = begin(hosts, dataset, others=OTHERS)
    decide(hosts, join)
    hosts.await_message("first/r00001-a*/advert/partner-b.json")
    hosts.kill("partner-b")
    hosts.start("partner-b", join)
    hosts.await_message("first/r00001-a*/masked/partner-a.json")
    hosts.kill("mailbox")
    hosts.start("mailbox", serve)
    hosts.await_message("first/r00001-a*/result/coordinator.json")
    hosts.do(
        "auditor", guide_command("verify", "fetch")
    )  # the model that round 1 started from is still there
    hosts.look = last_object(hosts.do("partner-a", guide_command("status", "first"), "--json"))
    for host in (*PARTNERS, "coordinator"):
        hosts.finish(host)
    return hosts


def decide(hosts, join):
    """Partner B's steward approves, after the site was killed while it waited."""
    hosts.await_file("partner-b", "requests/first-*.json")
    hosts.kill("partner-b")
    hosts.start("partner-b", join)
    listed = last_object(hosts.do("partner-b", guide_command("requests"), "--json"))["requests"]
    assert [each["stands"] for each in listed] == ["waiting"]
    assert "leaves the building" in hosts.do("partner-b", guide_command("requests", "show")).stdout
    messages = hosts.home("mailbox") / "mailbox" / "messages" / "first"
    assert not list(messages.glob("r*/*/partner-b.json"))  # it has said nothing
    assert not list(messages.glob("r*/plan/*"))  # and nobody has begun without it
    hosts.do("partner-b", guide_command("approve"))


@pytest.fixture(scope="module")
def afterwards(hosts):
    """The rest of the guide, on the same hosts after the run."""
    rotation = last_object(hosts.do("partner-a", guide_command("keys", "rotate"), "--json"))["rotation"]
    shutil.copy(rotation, hosts.at("coordinator"))
    hosts.do("partner-c", guide_command("roster", "leave"))  # three are the least: its letter stays unsent
    late = ("refuse", "first")
    refused = hosts.do("partner-b", guide_command(*late))
    assert "refused first-" in refused.stdout
    made = last_object(hosts.do("coordinator", guide_command("roster", "make", "--after"), "--json"))
    (hosts.at("coordinator") / "roster-digest").write_text(json.dumps(made["digest"]))
    accept_everywhere(hosts, others=OTHERS)
    hosts.do("coordinator", guide_command("status"))
    verified = last_object(hosts.do("auditor", guide_command("verify", "round"), "--json"))
    shown = last_object(hosts.do("partner-b", guide_command("roster", "show"), "--json"))
    return {"made": made, "verified": verified, "shown": shown}


def test_an_auditor_repeats_a_round_of_the_run_from_its_own_copy(afterwards):
    assert afterwards["verified"]["outcome_verified"]
    assert afterwards["verified"]["survivors"] == list(PARTNERS)


def test_new_keys_come_with_the_next_roster_and_everybody_has_it(afterwards):
    assert afterwards["made"]["changes"] == {"rotated": ["partner-a"]}
    assert afterwards["shown"]["digest"] == afterwards["made"]["digest"]
    assert afterwards["shown"]["version"] == 2


def test_a_partner_saw_the_run_while_it_lasted(hosts):
    found = hosts.look["runs"]["first"]
    assert found["sent_bytes"] > 0
    assert found["rounds"][1]["survivors"] == list(PARTNERS)


def test_separate_sites_end_with_the_model_of_one_machine_bit_for_bit(hosts, reference):
    trunks = {hosts.result(host)["trunk_sha256"] for host in ("coordinator", *PARTNERS)}
    assert trunks == {reference[0]["trunk_sha256"]}
    assert hosts.result("coordinator")["consortium"] == reference[0]["consortium"]


def test_every_partner_has_registered_its_own_model_in_its_own_store(hosts):
    for name in PARTNERS:
        assert hosts.result(name)["model"] == f"models:/{name}-qsar/1"
        assert (hosts.home(name) / "mlflow" / "mlflow.db").exists()
    assert hosts.result("coordinator")["models"] == {"coordinator": "models:/motet-trunk/1"}


def test_nothing_was_said_twice_and_nothing_is_missing(hosts):
    messages = hosts.home("mailbox") / "mailbox" / "messages" / "first"
    for number in range(5):
        (attempt,) = messages.glob(f"r{number:05d}-a*")
        assert sorted(path.stem for path in (attempt / "masked").glob("*.json")) == list(PARTNERS)
    assert not list((hosts.home("mailbox") / "mailbox" / "quarantine").glob("*"))


def test_whoever_runs_the_mailbox_reads_no_plan_no_outcome_no_share_and_no_model(hosts, dataset):
    assert_the_operator_reads_nothing(hosts, dataset)


def test_the_guide_takes_at_most_fifteen_commands_to_the_first_round(hosts):
    assert len(first_commands()) <= MOST_COMMANDS


def test_every_command_of_the_guide_was_executed(hosts, afterwards):
    assert [command for command in guide_commands() if command not in hosts.commands_run] == []


def test_the_partners_share_one_secret_which_nobody_else_has(hosts):
    secrets = {(hosts.home(name) / "keys" / "consortium_secret").read_bytes() for name in PARTNERS}
    (secret,) = secrets
    for host in ("coordinator", "mailbox", "auditor"):
        for path in hosts.home(host).rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert secret not in data
                assert secret.hex().encode() not in data


@pytest.mark.parametrize("name", PARTNERS)
def test_no_private_key_and_no_structure_of_a_partner_is_on_another_host(hosts, dataset, name):
    keys = [
        path.read_bytes()
        for path in (hosts.home(name) / "keys").rglob("*")
        if path.is_file() and path.name not in ("consortium_secret", "enrolment.json")
    ]
    own = own_structures(dataset, name)
    for host in ("coordinator", *OTHERS):
        if host != name:
            for path in hosts.root.joinpath(host).rglob("*"):
                data = path.read_bytes() if path.is_file() else b""
                assert not [needle for needle in (*keys, *own) if needle in data], path.name
