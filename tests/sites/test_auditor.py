"""An auditor on a host of its own: it reads everything, writes nothing, and verifies without the mailbox."""

import asyncio
import http.client
import json

import numpy as np
import pytest

from data_contracts.envelope import Kind, Slot
from data_contracts.errors import ProtocolError, SettingsError
from data_contracts.plan import RoundPlan
from flows import services
from flows.cli import main
from flows.enrolment import join_consortium
from tasks.exchange.https_addresses import address_of_blob, address_of_slot
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.exchange.transport_keys import party_context
from tasks.rounds.coordinator import conduct, publish_plan
from tasks.rounds.partner import Contributor
from tasks.rounds.patience import Patience
from tasks.rounds.study import write_contribution
from tasks.rounds.transcript import Transcript, named_blobs
from tasks.studies.evaluation import EVALUATION, EvaluationParameters, lanes
from tests.sites import places as made
from tests.sites.places import PARTNERS

RUN = "audited"
PARAMETERS = EvaluationParameters(split="validation", after_round=1, arms=1)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A consortium with an auditor that has played one round."""
    everybody = made.make_all(tmp_path_factory.mktemp("sites"), auditor=True)
    made.enrolled(everybody).serve()
    for name in PARTNERS:
        asyncio.run(join_consortium(everybody.site(name)))
    asyncio.run(play(everybody))
    yield everybody
    everybody.close()


async def play(places):
    boards = {name: places.site(name).board(RUN) for name in (*PARTNERS, "coordinator")}
    leading = boards["coordinator"]
    made.share_key(places, RUN)
    draft = RoundPlan(
        run_id=RUN, round=0, study="evaluation", cohort=PARTNERS, threshold=3, lanes=lanes(PARAMETERS),
        model_in=leading.mailbox.blobs.put([b"a trunk"], contract="trunk@1"),
        parameters=PARAMETERS.model_dump(), deadline_seconds=60,
    )  # fmt: skip
    plan = publish_plan(leading, draft)

    async def take_part(name):
        directory = places.site(name).path / "contribution"
        write_contribution(directory, {lane.name: np.full(lane.length, 2**20) for lane in plan.lanes})
        contributor = Contributor(
            boards[name], places.site(name).in_run(RUN).vault, bytes(32), Patience(60.0)
        )
        await contributor.contribute(plan, directory)

    await asyncio.gather(
        conduct(leading, plan, study=EVALUATION, inputs=leading.mailbox.blobs), *map(take_part, PARTNERS)
    )


def motet(*arguments, home, capsys):
    code = main([*arguments, "--home", str(home), "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_an_auditor_is_on_the_roster_and_counts_as_nobody_who_speaks(places):
    roster = places.site("auditor").roster
    assert roster.statement("auditor").role == "auditor"
    assert roster.roster.partners == PARTNERS
    assert "auditor" not in roster.roster.public_keys


def request(places, name, method, address, body):
    site = places.site(name)
    tls = party_context(site.transport_key, mailbox=site.roster.mailbox.certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", places.service.port, context=tls, timeout=20)
    try:
        connection.request(method, address, body=body)
        return connection.getresponse().status
    finally:
        connection.close()


OWN = address_of_slot(Slot(RUN, 0, 0, Kind.ADVERT, "auditor"))
OF_ANOTHER = address_of_slot(Slot(RUN, 5, 0, Kind.ADVERT, "partner-a"))
BLOB = address_of_blob("a" * 64)


@pytest.mark.parametrize(
    ("method", "address"), [("PUT", OWN), ("PUT", OF_ANOTHER), ("PUT", BLOB), ("DELETE", BLOB)]
)
def test_the_mailbox_takes_nothing_from_an_auditor(places, method, address):
    assert request(places, "auditor", method, address, b"something") == 403
    assert request(places, "auditor", "GET", "/v1/runs", None) == 200


def test_an_auditor_verifies_a_round_after_the_mailbox_has_gone(places, capsys):
    home = places.site("auditor").path
    code, refused = motet("verify", "round", RUN, "0", home=home, capsys=capsys)
    assert (code, refused["advice"]) == (2, "copy it first: motet verify fetch")
    code, copied = motet("verify", "fetch", home=home, capsys=capsys)
    assert code == 0
    n_messages = 5 * 3 + 7  # of every partner its five; key, plan, four lists, outcome
    assert copied["runs"][RUN]["messages"] == n_messages
    assert copied["runs"][RUN]["missing"] == 0
    _, again = motet("verify", "fetch", RUN, home=home, capsys=capsys)
    assert again["runs"][RUN]["messages"] == again["runs"][RUN]["blob_bytes"] == 0
    mailbox = DirectoryMailbox(places.site("mailbox").path / "mailbox")
    for blob in (*mailbox.root.glob("blobs/*"), *mailbox.root.glob("sealed/*/*")):
        blob.unlink()  # as if the mailbox had made room, or its host had burnt down
    code, verified = motet("verify", "round", RUN, "0", home=home, capsys=capsys)
    assert code == 0
    assert verified["outcome_verified"]
    assert verified["survivors"] == list(PARTNERS)


def test_a_message_that_nobody_signed_is_not_copied(places, tmp_path):
    board = places.site("auditor").board("forged")
    below = DirectoryMailbox(places.site("mailbox").path / "mailbox")
    below.post(Slot("forged", 0, 0, Kind.RUN_CLOSED, "coordinator"), b'{"head":1}')
    copied = Transcript(board, DirectoryMailbox(tmp_path / "copy")).take()
    assert (copied.refused, copied.messages) == (1, 0)


def test_a_run_that_is_not_there_is_named(places, capsys):
    code, refused = motet("verify", "fetch", "no-such-run", home=places.site("auditor").path, capsys=capsys)
    assert code == 2
    assert RUN in refused["advice"]


def test_an_auditor_serves_no_flow_and_leads_none(places):
    with pytest.raises(SettingsError, match="an auditor has no Prefect"):
        services.up(places.site("auditor").path)
    with pytest.raises(SettingsError, match="'auditor' is an auditor"):
        places.site("auditor").demand_role("partner")


def test_blobs_that_a_plan_or_an_outcome_names_are_found_wherever_they_stand():
    digest = {"sha256": "a" * 64, "bytes": 3, "contract": "trunk@1"}
    value = {
        "trunk": digest,
        "more": [{"catalogue_sha256": "b" * 64, "catalogue_bytes": 5}],
        "n_sha256": "c" * 64,
    }
    assert [(found.sha256[0], found.bytes) for found in named_blobs(value)] == [("a", 3), ("b", 5)]


def test_a_roster_with_the_certificate_of_an_auditor_twice_is_refused(places, tmp_path):
    from flows.enrolment import make_roster

    copy = tmp_path / "auditor.json"
    copy.write_bytes((places.site("auditor").path / "enrolment.json").read_bytes())
    others = [site.path / "enrolment.json" for name, site in places.sites.items() if name != "coordinator"]
    with pytest.raises(ProtocolError, match="two have one name"):
        make_roster(places.site("coordinator"), [*others, copy])
