"""The guide on five hosts that share nothing but a cable to the mailbox: ChEMBL in, a registered model at every partner.

What went over the mailbox's cable was recorded: TLS records, and nothing that a partner owns.
"""

import json
import struct
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from tests.hosts.capture import APPLICATION_DATA, HANDSHAKE, Recording, record_types, streams
from tests.hosts.network import HOSTS, PORT
from tests.sites.hosts import PARTNERS, begin, enrol, own_structures
from tests.sites.operator import assert_the_operator_reads_nothing

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500), pytest.mark.shared_data]
PASSWORD = "a-password-of-partner-a"  # noqa: S105 - of a site that ends with the tests
OUTAGE_SECONDS = 8.0
CALL = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()
except OSError as exc:
    sys.exit(f"not reached: {type(exc).__name__}")
"""


@pytest.fixture(scope="module")
def hosts(divided, reference, dataset):
    """The guide from its first command to its last; in the middle of a round the mailbox loses its cable."""
    hosts, network = divided, divided.network
    recording = Recording(hosts.root / "mailbox.pcap", inside=network.inside("mailbox"))
    try:
        enrol(hosts, dataset, same_secrets_as=reference[1])
        begin(hosts, dataset)
        hosts.await_message("first/r00001-a*/advert/partner-b.json")
        network.cut("mailbox")
        time.sleep(OUTAGE_SECONDS)
        assert all(process.poll() is None for process in hosts.running.values())
        network.mend("mailbox")
        for host in (*PARTNERS, "coordinator"):
            hosts.finish(host)
    finally:
        said = recording.end()
    assert "0 packets dropped by kernel" in said
    return hosts


@pytest.fixture(scope="module")
def on_the_cable(hosts):
    found = streams(hosts.root / "mailbox.pcap")
    assert sum(map(len, found.values())) > 10**6
    return found


def call(hosts, host, target, port=PORT):
    """Try to reach a host's port from another host."""
    command = [*hosts.inside(host), sys.executable, "-c", CALL, hosts.network.address(target), str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 or "not reached" in done.stderr, done.stderr
    return done.returncode == 0


def test_five_hosts_end_with_the_model_of_one_machine_bit_for_bit(hosts, reference):
    trunks = {hosts.result(host)["trunk_sha256"] for host in ("coordinator", *PARTNERS)}
    assert trunks == {reference[0]["trunk_sha256"]}
    assert hosts.result("coordinator")["consortium"] == reference[0]["consortium"]


def test_every_partner_has_registered_a_model_of_real_measurements(hosts):
    for name in PARTNERS:
        assert hosts.result(name)["model"] == f"models:/{name}-qsar/1"
        run = json.loads((hosts.home(name) / "runs" / "first" / "run.json").read_bytes())
        assert "simulated" not in json.dumps(run["settings"])


def test_from_the_mailbox_and_from_each_other_nobody_reaches_a_partner(hosts):
    """A port is opened on every partner first, so that only the firewall and the switch can keep callers out."""
    listeners = [
        subprocess.Popen(
            [*hosts.inside(name), sys.executable, "-m", "http.server", str(PORT)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=hosts.at(name) / "motet-home" / "runs",
        )
        for name in PARTNERS
    ]
    try:
        for name in PARTNERS:
            while subprocess.run(
                [*hosts.inside(name), sys.executable, "-c", CALL, "127.0.0.1", str(PORT)], check=False
            ).returncode:
                pass
        reached = {
            (host, name) for name in PARTNERS for host in HOSTS if host != name and call(hosts, host, name)
        }
        assert reached == set()
    finally:
        for listener in listeners:
            listener.kill()
            listener.wait()


def test_every_byte_on_the_mailboxs_cable_belongs_to_a_tls_record(on_the_cable):
    callers = set()
    for ((source, _, _, port), _), stream in on_the_cable.items():
        types = record_types(stream)
        assert types[0] == HANDSHAKE
        assert set(types[1:]) <= {20, 21, APPLICATION_DATA}, "after the hello everything is encrypted"
        if port == PORT:
            callers.add(source[-1])
    assert len(callers) == len(HOSTS) - 1


@pytest.mark.parametrize("name", PARTNERS)
def test_no_structure_no_identifier_and_no_value_of_a_partner_is_on_the_cable(on_the_cable, dataset, name):
    activities = pq.read_table(dataset.files(name).activities).slice(0, 30)
    ids = [text.encode() for text in activities["compound_id"].unique().to_pylist() if len(text) > 5]
    values = [struct.pack("<d", value) for value in activities["value"].unique().to_pylist()]
    assert ids
    assert values
    needles = (*ids, *values, *own_structures(dataset, name)[:15], b'{"head":', b'"signature"')
    assert not [needle for needle in needles if any(needle in stream for stream in on_the_cable.values())]


def test_whoever_runs_the_mailbox_reads_no_plan_no_outcome_no_share_and_no_model(hosts, dataset):
    assert_the_operator_reads_nothing(hosts, dataset)


def test_the_coordinators_prefect_kept_its_records_in_postgresql(hosts):
    assert hosts.database.ask("select distinct state_type from flow_run") == "COMPLETED"
    assert int(hosts.database.ask("select count(*) from task_run")) > 0
    assert not list((hosts.home("coordinator") / "prefect").glob("*.db"))


def test_a_partners_registry_is_opened_by_its_password_only(hosts):
    written = hosts.home("partner-a") / "keys" / "mlflow_password"
    written.touch(mode=0o600)
    written.write_text(PASSWORD)
    asked = "http://127.0.0.1:5000/api/2.0/mlflow/registered-models/get?name=partner-a-qsar"
    program = (
        "import base64, sys, urllib.request, urllib.error\n"
        "request = urllib.request.Request(sys.argv[1])\n"
        "login = base64.b64encode(b'admin:' + sys.argv[2].encode()).decode()\n"
        "request.add_header('Authorization', 'Basic ' + login)\n"
        "try:\n    print(urllib.request.urlopen(request).read().decode())\n"
        "except urllib.error.HTTPError as exc:\n    print(exc.code)\n"
    )
    try:
        hosts.do("partner-a", ["up"])
        answers = [
            subprocess.run(
                [*hosts.inside("partner-a"), sys.executable, "-c", program, asked, password],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout.strip()
            for password in ("password1234", PASSWORD)
        ]
    finally:
        hosts.do("partner-a", ["down"])
    assert answers[0] == "401"
    assert json.loads(answers[1])["registered_model"]["name"] == "partner-a-qsar"
    assert PASSWORD not in (hosts.home("partner-a") / "services" / "mlflow.log").read_text()
