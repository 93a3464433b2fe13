"""Three partners, a coordinator and a mailbox as separate processes, started by the guide's own commands.

One of them is killed in the middle of a round, then the mailbox, and the run ends with the model that everybody on
one machine would have trained.
"""

import pytest

from tests.sites.hosts import (
    OTHERS,
    PARTNERS,
    TRAINING,
    begin,
    enrol,
    guide_commands,
    last_object,
    motet,
    own_structures,
)
from tests.sites.operator import assert_the_operator_reads_nothing

pytestmark = pytest.mark.timeout(1200)
MOST_COMMANDS = 15


@pytest.fixture(scope="module")
def reference(dataset, tmp_path_factory):
    """The same run with everybody on one machine."""
    place = tmp_path_factory.mktemp("one-machine")
    settings = ["--run-id", "first", "--no-pooled-arm", *TRAINING, "--json"]
    done = motet("run", "--data", dataset.path, *settings, cwd=place)
    return last_object(done), place / "motet-home" / "runs" / "first"


@pytest.fixture(scope="module")
def hosts(reference, dataset, make_hosts):
    """The guide from its first command to its last, with two mishaps on the way."""
    hosts = make_hosts()
    enrol(hosts, dataset, same_secrets_as=reference[1])
    serve, join = begin(hosts, dataset)
    hosts.await_message("first/r00001-a*/advert/partner-b.json")
    hosts.kill("partner-b")
    hosts.start("partner-b", join)
    hosts.await_message("first/r00001-a*/masked/partner-a.json")
    hosts.kill("mailbox")
    hosts.start("mailbox", serve)
    for host in (*PARTNERS, "coordinator"):
        hosts.finish(host)
    return hosts


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


def test_the_guide_takes_at_most_fifteen_commands_and_each_was_executed(hosts):
    commands = guide_commands()
    assert len(commands) <= MOST_COMMANDS
    assert [command for command in commands if command not in hosts.commands_run] == []


def test_the_partners_share_one_secret_which_nobody_else_has(hosts):
    secrets = {(hosts.home(name) / "keys" / "consortium_secret").read_bytes() for name in PARTNERS}
    (secret,) = secrets
    for host in ("coordinator", "mailbox"):
        for path in hosts.home(host).rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert secret not in data
                assert secret.hex().encode() not in data


@pytest.mark.parametrize("name", PARTNERS)
def test_no_private_key_and_no_structure_of_a_partner_is_on_another_host(hosts, dataset, name):
    keys = [
        path.read_bytes()
        for path in (hosts.home(name) / "keys").iterdir()
        if path.stem != "consortium_secret"
    ]
    own = own_structures(dataset, name)
    for host in ("coordinator", *OTHERS):
        if host != name:
            for path in hosts.root.joinpath(host).rglob("*"):
                data = path.read_bytes() if path.is_file() else b""
                assert not [needle for needle in (*keys, *own) if needle in data], path.name
