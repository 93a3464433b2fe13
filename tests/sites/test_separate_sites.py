"""Three partners, a coordinator and a mailbox as separate processes, started by the guide's own commands.

One of them is killed in the middle of a round, then the mailbox, and the run ends with the model that everybody on
one machine would have trained.
"""

import json
import shutil

import pytest

from tests.sites.conftest import PARTNERS, TABLES, TRAINING, guide_commands, last_object, motet

pytestmark = pytest.mark.timeout(600)
OTHERS = ("mailbox", *PARTNERS)
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
    commands = guide_commands()
    accept_mailbox, serve, accept, doctor, join, doctor_again, lead = commands[4:]
    digest = json.loads((hosts.at("coordinator") / "roster-digest").read_text())
    for host in OTHERS:
        shutil.copy(hosts.home("coordinator") / "roster.json", hosts.at(host))
    hosts.do("mailbox", accept_mailbox, DIGEST=digest)
    hosts.start("mailbox", serve)
    for name in PARTNERS:
        hosts.do(name, accept, DIGEST=digest)
        hosts.start(name, join)
    looked = hosts.do("partner-a", doctor, check=False), hosts.do("coordinator", doctor_again, check=False)
    assert all("answers at 127.0.0.1" in each.stdout for each in looked)
    (hosts.at("coordinator") / "catalogue.txt").write_text("\n".join(dataset.catalogue))
    data_set = {"qsar-2026": dataset.name}
    hosts.start("coordinator", lead, "--simulated", *TRAINING, **data_set)

    hosts.await_message("first/r00001-a*/advert/partner-b.json")
    hosts.kill("partner-b")
    hosts.start("partner-b", join)
    hosts.await_message("first/r00001-a*/masked/partner-a.json")
    hosts.kill("mailbox")
    hosts.start("mailbox", serve)
    for host in (*PARTNERS, "coordinator"):
        hosts.finish(host)
    return hosts


def enrol(hosts, dataset, *, same_secrets_as):
    """The guide's first part; the partners' secrets are then made those of another run."""
    init_mailbox, init_coordinator, init_partner, make_roster = guide_commands()[:4]
    hosts.do("mailbox", init_mailbox)
    hosts.do("coordinator", init_coordinator)
    for name in PARTNERS:
        for table in TABLES:
            shutil.copy(getattr(dataset.files(name), table), hosts.at(name) / f"{table}.parquet")
        hosts.do(name, init_partner, "--simulated", **{"qsar-2026": dataset.name})
        keys = same_secrets_as / "partners" / name / "keys"
        shutil.copy(keys / "site_secret", hosts.home(name) / "keys")
    first = same_secrets_as / "partners" / PARTNERS[0] / "keys" / "consortium_secret"
    shutil.copy(first, hosts.home(PARTNERS[0]) / "keys")  # the first by name proposes it to the others
    for host in OTHERS:
        shutil.copy(hosts.home(host) / "enrolment.json", hosts.at("coordinator") / f"{host}.json")
    given = {"acme.json": "partner-a.json", "bolt.json": "partner-b.json", "cure.json": "partner-c.json"}
    made = last_object(hosts.do("coordinator", make_roster, "--json", **given))
    (hosts.at("coordinator") / "roster-digest").write_text(json.dumps(made["digest"]))


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
    import pyarrow.parquet as pq

    keys = [
        path.read_bytes()
        for path in (hosts.home(name) / "keys").iterdir()
        if path.stem != "consortium_secret"
    ]
    structures = pq.read_table(dataset.files(name).structures)["smiles"].to_pylist()
    others = {text for other in PARTNERS if other != name for text in _structures(dataset, other)}
    own = [text.encode() for text in structures if text not in others and len(text) > 30][:50]
    assert own
    for host in ("coordinator", *OTHERS):
        if host != name:
            for path in hosts.root.joinpath(host).rglob("*"):
                data = path.read_bytes() if path.is_file() else b""
                assert not [needle for needle in (*keys, *own) if needle in data], path.name


def _structures(dataset, name):
    import pyarrow.parquet as pq

    return pq.read_table(dataset.files(name).structures)["smiles"].to_pylist()
