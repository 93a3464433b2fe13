"""Whole runs over a mailbox that is away for minutes, and over object storage, against everybody on one machine."""

import subprocess
from dataclasses import dataclass

import pytest

from tests.exchange.s3_server import make_bucket, serving_s3
from tests.sites.hosts import (
    PARTNERS,
    TRAINING,
    Hosts,
    accept_everywhere,
    begin,
    enrol,
    guide_command,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
OUTAGE_SECONDS = 150.0
MODEL = "trunk_sha256"


@dataclass
class HostsAroundABucket(Hosts):
    """Hosts whose messages lie in object storage; nobody runs a mailbox."""

    bucket: str = ""
    endpoint: str = ""

    def environment(self, host):
        del host
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            **dict.fromkeys(names, "tested"),
        }

    def do(self, host, command, *more, **asked):
        here = ("--mailbox", self.bucket) if command[0] == "init" else ()
        words = [word for word in command if word != "mailbox.json"]  # nobody enrols one
        return super().do(host, words, *more, *here, **asked)


def finish(hosts):
    for host in (*PARTNERS, "coordinator"):
        hosts.finish(host)


def test_an_outage_of_minutes_ends_in_nothing_but_a_pause(reference, dataset, make_hosts):
    hosts = make_hosts()
    enrol(hosts, dataset, same_secrets_as=reference[1])
    serve, _ = begin(hosts, dataset)
    hosts.await_message("first/r00001-a*/masked/partner-a.json")
    hosts.kill("mailbox")
    with pytest.raises(subprocess.TimeoutExpired):  # nobody gives up meanwhile
        hosts.running["coordinator"].wait(timeout=OUTAGE_SECONDS)
    assert all(process.poll() is None for process in hosts.running.values())
    hosts.start("mailbox", serve)
    finish(hosts)
    assert hosts.result("coordinator")[MODEL] == reference[0][MODEL]
    messages = hosts.home("mailbox") / "mailbox" / "messages" / "first"
    assert {path.name.partition("-a")[2] for path in messages.glob("r*")} == {
        "0"
    }  # no attempt was lost either


def test_a_whole_study_over_object_storage_ends_with_the_model_of_one_machine(
    reference, dataset, tmp_path_factory
):
    with serving_s3() as address:
        hosts = HostsAroundABucket(
            tmp_path_factory.mktemp("hosts"),
            bucket=f"s3://{make_bucket(address, 'study')}/one",
            endpoint=address,
        )
        try:
            enrol(hosts, dataset, same_secrets_as=reference[1], others=PARTNERS)
            accept_everywhere(hosts, others=PARTNERS)
            (hosts.at("coordinator") / "catalogue.txt").write_text("\n".join(dataset.catalogue))
            told = {"qsar-2026": dataset.name}
            for name in PARTNERS:
                hosts.start(name, guide_command("join"))
            invented = ["--simulated"] if dataset.card.simulated_assays else []
            hosts.start("coordinator", guide_command("lead"), *invented, *TRAINING, **told)
            finish(hosts)
        finally:
            hosts.end()
    assert hosts.result("coordinator")[MODEL] == reference[0][MODEL]
