"""Three partners, a coordinator and a mailbox as separate processes, started by the guide's own commands.

One of them is killed in the middle of a round, then the mailbox, and the run ends with the model that everybody on
one machine would have trained.
"""

import json
import shutil

import pytest

from tests.sites.conftest import (
    PARTNERS,
    TABLES,
    TRAINING,
    first_commands,
    guide_command,
    guide_commands,
    last_object,
    motet,
)

pytestmark = pytest.mark.timeout(1800)
OTHERS = ("mailbox", "auditor", *PARTNERS)
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
    """The guide from its first command to its last, with mishaps on the way."""
    hosts = make_hosts()
    enrol(hosts, dataset, same_secrets_as=reference[1])
    accept, serve, join = (guide_command(*words) for words in (("roster", "accept"), ("mailbox",), ("join",)))
    accept_everywhere(hosts, accept)
    hosts.start("mailbox", serve)
    for name in PARTNERS:
        hosts.start(name, join)
    doctor = guide_command("doctor")
    looked = hosts.do("partner-a", doctor, check=False), hosts.do("coordinator", doctor, check=False)
    assert all("answers at 127.0.0.1" in each.stdout for each in looked)
    (hosts.at("coordinator") / "catalogue.txt").write_text("\n".join(dataset.catalogue))
    data_set = {"qsar-2026": dataset.name}
    hosts.start("coordinator", guide_command("lead"), "--simulated", *TRAINING, **data_set)
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


def accept_everywhere(hosts, accept):
    digest = json.loads((hosts.at("coordinator") / "roster-digest").read_text())
    for host in OTHERS:
        shutil.copy(hosts.home("coordinator") / "roster.json", hosts.at(host))
        home = ("--home", hosts.home(host)) if host == "mailbox" else ()
        hosts.do(host, accept[: accept.index("--digest") + 2], *home, DIGEST=digest)
        hosts.commands_run.append(accept)
    hosts.commands_run += [each for each in guide_commands() if each[:2] == ["roster", "accept"]]


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


def enrol(hosts, dataset, *, same_secrets_as):
    """The guide's first part; the partners' secrets are then made those of another run."""
    hosts.do("mailbox", guide_command("init", "mailbox"))
    hosts.do("coordinator", guide_command("init", "coordinator"))
    hosts.do("auditor", guide_command("init", "auditor"))
    for name in PARTNERS:
        for table in TABLES:
            shutil.copy(getattr(dataset.files(name), table), hosts.at(name) / f"{table}.parquet")
        told = {"qsar-2026": dataset.name} | ({"--grant": "--ask"} if name == "partner-b" else {})
        hosts.do(name, guide_command("init", "partner"), "--simulated", **told)
        keys = same_secrets_as / "partners" / name / "keys"
        shutil.copy(keys / "site_secret", hosts.home(name) / "keys")
    first = same_secrets_as / "partners" / PARTNERS[0] / "keys" / "consortium_secret"
    shutil.copy(first, hosts.home(PARTNERS[0]) / "keys")  # the first by name proposes it to the others
    for host in OTHERS:
        shutil.copy(hosts.home(host) / "enrolment.json", hosts.at("coordinator") / f"{host}.json")
    given = {"acme.json": "partner-a.json", "bolt.json": "partner-b.json", "cure.json": "partner-c.json"}
    make = guide_command("roster", "make")
    made = last_object(hosts.do("coordinator", make, "auditor.json", "--json", **given))
    (hosts.at("coordinator") / "roster-digest").write_text(json.dumps(made["digest"]))


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
    accept_everywhere(hosts, guide_command("roster", "accept"))
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
    import pyarrow.parquet as pq

    keys = [
        path.read_bytes()
        for path in (hosts.home(name) / "keys").rglob("*")
        if path.is_file() and path.name not in ("consortium_secret", "enrolment.json")
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
