"""Companies join, leave and replace their keys: every change is signed, ordered, and seen by all who stay."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from data_contracts.canonical_json import canonical_bytes
from data_contracts.envelope import Kind
from data_contracts.errors import ProtocolError, SettingsError
from flows.cli import main
from flows.enrolment import (
    accept_roster,
    await_acceptance,
    join_consortium,
    leave_consortium,
    make_roster,
    make_successor,
    rotate_keys,
)
from flows.settings import RunSettings
from flows.site_run import prepare_run
from tasks.exchange.board import Board
from tasks.exchange.enrolment import Departure, Enrolment, Rotation, SignedRoster, Succession
from tasks.exchange.identity import Identity, secret_file
from tasks.exchange.mailbox import DirectoryMailbox
from tasks.exchange.succession import changes_of
from tests.sites import places as made
from tests.sites.places import NOW, PARTNERS

LATER = datetime.now(UTC) + timedelta(days=1)
EARLIER = datetime.now(UTC) - timedelta(seconds=1)


@pytest.fixture
def places(tmp_path):
    """A consortium of four partners, so that one may leave."""
    everybody = made.make_all(tmp_path)
    everybody.sites["partner-d"] = made.make(tmp_path, "partner-d")
    made.enrolled(everybody)
    yield everybody
    everybody.close()


def everybody_accepts(places, roster, *, but=()):
    data = canonical_bytes(roster.model_dump(mode="json"))
    return {
        name: accept_roster(site, data, digest=roster.digest)[1]
        for name, site in places.sites.items()
        if name != "coordinator" and name not in but
    }


def follow(places, *files, but=(), until=LATER, **changed):
    """The coordinator makes the next roster, and all on it accept it."""
    roster, changes = make_successor(places.site("coordinator"), files, until=until, **changed)
    everybody_accepts(places, roster, but=but)
    return roster, changes


def share_secret(places, *names):
    for name in names:
        asyncio.run(join_consortium(places.site(name)))
    return {(places.site(name).keys / "consortium_secret").read_bytes() for name in names}


ALL = (*PARTNERS, "partner-d")


def test_a_partner_joins_and_gets_the_secret_that_the_others_have(places, tmp_path):
    (secret,) = share_made(places)
    places.sites["alpha"] = made.make(
        tmp_path, "alpha"
    )  # the first by name, and it makes no secret of its own
    roster, changes = follow(places, places.site("alpha").path / "enrolment.json")
    assert (roster.version, changes.joined, changes.removed) == (2, ("alpha",), ())
    places.service.shutdown()
    places.service.server_close()
    places.thread.join()
    places.serve()  # the mailbox, started anew, knows the newest roster
    assert share_secret(places, *ALL, "alpha") == {secret}
    asyncio.run(await_acceptance(places.site("coordinator")))


def share_made(places):
    places.serve()
    return share_secret(places, *ALL)


def test_no_run_is_led_before_all_who_stay_have_signed_the_new_roster(places, tmp_path):
    places.serve()
    file = leave_consortium(places.site("partner-d"))
    roster, _ = make_successor(places.site("coordinator"), [file], until=LATER)
    everybody_accepts(places, roster, but=("partner-c", "partner-d"))
    for name in ("partner-a", "partner-b"):
        asyncio.run(join_consortium(places.site(name)))
    with pytest.raises(ProtocolError, match="have not accepted the roster: partner-c"):
        asyncio.run(await_acceptance(places.site("coordinator")))


def test_a_partner_leaves_by_its_own_signature_or_is_left_behind_and_both_are_told_apart(places, tmp_path):
    places.sites["partner-e"] = made.make(tmp_path, "partner-e")
    follow(places, places.site("partner-e").path / "enrolment.json")
    _, changes = follow(places, leave_consortium(places.site("partner-d")), but=("partner-d",))
    assert (changes.left, changes.removed) == (("partner-d",), ())
    roster, changes = follow(places, removed=["partner-e"], but=("partner-d", "partner-e"))
    assert (changes.left, changes.removed) == ((), ("partner-e",))
    assert (roster.version, roster.roster.partners) == (4, PARTNERS)
    with pytest.raises(ProtocolError, match="at least 3 partners"):
        make_successor(places.site("coordinator"), (), removed=["partner-a"], until=LATER)


def rotated(places, name, **changed):
    file = rotate_keys(places.site(name), now=NOW)
    return follow(places, file, **changed)


@pytest.mark.parametrize("name", ["partner-a", "coordinator", "mailbox"])
def test_keys_rotate_and_the_new_ones_count_from_the_next_roster_on(places, name):
    site = places.site(name)
    before = site.identity.public_key
    assert rotate_keys(site, now=NOW) == rotate_keys(site, now=NOW)  # it waits; asking again makes no other
    assert site.identity.public_key == before
    roster, changes = rotated(places, name)
    assert changes.rotated == (name,)
    assert site.identity.public_key.hex() == roster.statement(name).public_key != before.hex()
    places.serve()
    assert len(share_secret(places, *ALL)) == 1
    asyncio.run(await_acceptance(places.site("coordinator")))
    again, _ = rotated(places, name)
    assert (again.version, len(site.rooms)) == (3, 3)


def test_a_run_goes_on_under_the_roster_it_was_planned_under_until_that_ends(places):
    coordinator, partner = places.site("coordinator"), places.site("partner-a")
    settings = RunSettings(data="qsar-2026", partners=4, pooled_arm=False)
    study = {"simulated_assays": False, "listed": [], "now": NOW}
    prepare_run(coordinator, settings, run_id="first", **study)
    partner.keep_roster_of("first", partner.roster)
    old = partner.identity
    rotated(places, "partner-a")
    places.serve()
    partner.open_board("first").post_json(Kind.RUN_ANSWER, {"old": True})
    assert coordinator.open_board("first").read(Kind.RUN_ANSWER, "partner-a").json() == {"old": True}
    assert partner.open_board("first").identity.public_key == old.public_key != partner.identity.public_key
    coordinator.demand_in_force("first", now=NOW)
    with pytest.raises(
        ProtocolError, match="run 'first' was planned under version 1 of the roster, which ended on"
    ):
        coordinator.demand_in_force("first", now=LATER + timedelta(seconds=1))
    prepare_run(coordinator, settings, run_id="second", **study)
    coordinator.demand_in_force("second", now=LATER + timedelta(days=9))


def post_with(places, identity, *, run_id="second"):
    """Post as somebody with a key, through the mailbox."""
    site = places.site("partner-a")
    board = Board(site.open_board(run_id).mailbox, identity, site.roster.roster, run_id)
    board.post_json(Kind.RUN_ANSWER, {})


def test_a_message_under_a_key_that_was_rotated_out_is_refused_by_name(places):
    old = places.site("partner-a").identity
    rotated(places, "partner-a", until=EARLIER)
    places.serve()
    with pytest.raises(ProtocolError, match="the mailbox refuses"):
        post_with(places, old)
    (kept,) = (places.site("mailbox").path / "mailbox" / "quarantine").glob("*.json")
    assert "signed with a key that it has rotated out" in json.loads(kept.read_bytes())["why"]
    # Past the mailbox, by whoever runs it:
    below = DirectoryMailbox(places.site("mailbox").path / "mailbox")
    Board(below, old, places.site("partner-a").roster.roster, "third").post_json(Kind.RUN_ANSWER, {})
    assert places.site("coordinator").open_board("third").read(Kind.RUN_ANSWER, "partner-a") is None
    (kept,) = (places.site("coordinator").path / "quarantine").glob("*.json")
    assert (
        "'run-answer' of 'partner-a' is signed with a key that it has rotated out"
        in json.loads(kept.read_bytes())["why"]
    )


def test_while_runs_of_the_old_roster_go_on_the_mailbox_takes_the_old_key_and_no_reader_of_a_new_run_does(
    places,
):
    old = places.site("partner-a").identity
    rotated(places, "partner-a")
    places.serve()
    post_with(places, old)
    assert places.site("coordinator").open_board("second").read(Kind.RUN_ANSWER, "partner-a") is None


def test_one_who_has_left_is_shown_the_door_once_the_old_roster_has_ended(places):
    leaver = places.site("partner-d")
    follow(places, leave_consortium(leaver), but=("partner-d",), until=EARLIER)
    places.serve()
    with pytest.raises(ProtocolError, match="the mailbox refuses to list its runs: 403"):
        leaver.mailbox(copies=leaver.path / "copies").runs()


def test_no_site_goes_back_to_an_older_roster_or_past_one(places):
    first = places.site("partner-a").roster
    second, _ = rotated(places, "partner-b")
    with pytest.raises(
        ProtocolError, match="is version 1, and this site has pinned version 2: it would go back"
    ):
        accept_roster(
            places.site("partner-a"), canonical_bytes(first.model_dump(mode="json")), digest=first.digest
        )
    assert places.site("partner-a").roster.digest == second.digest
    third, _ = make_successor(
        places.site("coordinator"), [rotate_keys(places.site("partner-b"), now=NOW)], until=LATER
    )
    fourth, _ = make_successor(places.site("coordinator"), (), removed=["partner-d"], until=LATER)
    with pytest.raises(ProtocolError, match="does not follow the pinned version 2"):
        accept_roster(
            places.site("partner-c"), canonical_bytes(fourth.model_dump(mode="json")), digest=fourth.digest
        )
    everybody_accepts(places, third)
    everybody_accepts(places, fourth, but=("partner-d",))
    assert places.site("partner-c").roster.version == 4


class Forger:
    """A coordinator that signs whatever roster it likes."""

    def __init__(self, places, tmp_path):
        self.places, self.tmp_path = places, tmp_path
        self.old = places.site("coordinator").roster
        self.inside = {each.statement.name: each for each in self.old.enrolments}
        self.more = {"version": 2, "previous": self.old.digest, "previous_until": LATER}

    def sign(self, *, by="coordinator", **more):
        succession = Succession(**(self.more | more))
        signer = self.places.site(by).identity
        return SignedRoster.make(tuple(self.inside.values()), signer, succession=succession)

    def enrol(self, name, **changed):
        """A stranger's enrolment, or one that has something of somebody else's."""
        site = made.make(self.tmp_path / "strangers", name)
        statement = site.enrolment.statement.model_copy(update=changed)
        return site, Enrolment.make(statement, site.identity)


def _unlisted(forger):
    _, forger.inside["stranger"] = forger.enrol("stranger")
    return forger.sign()


def _with_anothers_seal(forger):
    """A stranger to whom the partners would seal their secret under the key of one of them."""
    theirs = forger.inside["partner-d"].statement
    del forger.inside["partner-d"]
    _, forger.inside["stranger"] = forger.enrol("stranger", sealing_key=theirs.sealing_key)
    return forger.sign(joined=("stranger",))


def _swapped(forger):
    _, forger.inside["partner-b"] = forger.enrol("partner-b")
    return forger.sign()


def _rotated_by_another(forger):
    _, new = forger.enrol("partner-b")
    forger.inside["partner-b"] = new
    by = forger.places.site("partner-c").identity
    return forger.sign(rotations=(Rotation.make(new, previous=forger.old.digest, old=by),))


def _rotated_for_another_roster(forger):
    _, new = forger.enrol("partner-b")
    forger.inside["partner-b"] = new
    by = forger.places.site("partner-b").identity
    return forger.sign(rotations=(Rotation.make(new, previous="0" * 64, old=by),))


def _rotated_into_another_role(forger):
    _, new = forger.enrol("partner-b", role="auditor")
    forger.inside["partner-b"] = new
    by = forger.places.site("partner-b").identity
    return forger.sign(rotations=(Rotation.make(new, previous=forger.old.digest, old=by),))


def _departure_by_another(forger):
    del forger.inside["partner-d"]
    by = Identity("partner-d", secret_file(forger.places.site("partner-c").keys / "identity"))
    return forger.sign(departures=(Departure.make(previous=forger.old.digest, leaver=by),))


def _departure_of_one_who_stays(forger):
    leaver = forger.places.site("partner-d").identity
    return forger.sign(departures=(Departure.make(previous=forger.old.digest, leaver=leaver),))


def _skipped_version(forger):
    return forger.sign(version=3)


def _of_another_chain(forger):
    return forger.sign(previous="0" * 64)


def _another_coordinator(forger):
    site, _ = forger.enrol("usurper")
    del forger.inside["coordinator"]
    forger.inside["usurper"] = Enrolment.make(
        site.enrolment.statement.model_copy(update={"role": "coordinator"}), site.identity
    )
    forger.places.sites["usurper"] = site
    return forger.sign(by="usurper", joined=("usurper",))


FORGED = {
    "a party that is not said to join": (_unlisted, "says that nobody joined, and lists others"),
    "a stranger with another's sealing key": (_with_anothers_seal, "would join with the sealing key of 'partner-d'"),
    "other keys for a partner": (_swapped, "the keys of 'partner-b' are new, and no rotation"),
    "a rotation signed by another": (_rotated_by_another, "'partner-b' is not signed with the key that it replaces"),
    "a rotation from another roster": (_rotated_for_another_roster, "no rotation to them from this roster"),
    "a rotation into another role": (_rotated_into_another_role, "'partner-b' was partner and would be auditor"),
    "a departure signed by another": (_departure_by_another, "'partner-d' has not signed that it leaves"),
    "a departure of one who stays": (_departure_of_one_who_stays, "'partner-d' has not signed that it leaves"),
    "a version too far": (_skipped_version, "does not follow the pinned version 1"),
    "a roster of another chain": (_of_another_chain, "does not follow the pinned version 1"),
    "another coordinator": (_another_coordinator, "led by 'usurper', the one before by 'coordinator'"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED)
def test_a_roster_whose_changes_do_not_hold_is_refused_by_name_even_if_its_digest_was_read_aloud(
    places, tmp_path, case
):
    forge, named = FORGED[case]
    roster = forge(Forger(places, tmp_path))
    data = canonical_bytes(roster.model_dump(mode="json"))
    with pytest.raises(ProtocolError) as refused:
        accept_roster(places.site("partner-a"), data, digest=roster.digest)
    assert named in str(refused.value)
    assert places.site("partner-a").roster.version == 1


def test_an_enrolment_whose_key_its_sender_does_not_hold_is_refused(places, tmp_path):
    site = made.make(tmp_path / "strangers", "stranger")
    forged = json.loads((site.path / "enrolment.json").read_bytes())
    forged["statement"]["public_key"] = places.site("partner-a").identity.public_key.hex()
    (tmp_path / "forged.json").write_text(json.dumps(forged))
    with pytest.raises(ProtocolError, match="is not signed with its own key"):
        make_successor(places.site("coordinator"), [tmp_path / "forged.json"], until=LATER)


def test_a_lost_key_comes_back_under_another_name_only(places, tmp_path):
    again = made.make(tmp_path / "again", "partner-d")
    with pytest.raises(ProtocolError, match="'partner-d' is on the roster already"):
        make_successor(places.site("coordinator"), [again.path / "enrolment.json"], until=LATER)


def test_who_is_no_coordinator_makes_no_roster(places):
    with pytest.raises(SettingsError, match="'partner-a' is a partner"):
        make_successor(places.site("partner-a"), (), removed=["partner-d"], until=LATER)
    others = [places.site(name).path / "enrolment.json" for name in (*PARTNERS, "mailbox")]
    with pytest.raises(SettingsError, match="'coordinator' has pinned another roster"):
        make_roster(places.site("coordinator"), others)


def motet(capsys, *arguments, home, fails=False):
    code = main([*map(str, arguments), "--home", str(home), "--json"])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (code != 0) == fails, said
    return said


def test_the_commands_lead_from_one_roster_to_the_next(places, tmp_path, capsys):
    coordinator, partner = places.site("coordinator").path, places.site("partner-a").path
    rotation = motet(capsys, "keys", "rotate", home=partner)["rotation"]
    departure = motet(capsys, "roster", "leave", "partner-d", home=places.site("partner-d").path)["departure"]
    after = ["roster", "make", "--after", coordinator / "roster.json", rotation, departure]
    made_now = motet(capsys, *after, home=coordinator)
    assert made_now["changes"] == {"left": ["partner-d"], "rotated": ["partner-a"]}
    stale = tmp_path / "stale.json"
    stale.write_bytes((partner / "roster.json").read_bytes())
    refused = motet(capsys, "roster", "make", "--after", stale, rotation, home=coordinator, fails=True)
    assert "--after names version 1" in refused["message"]
    accept = ["roster", "accept", coordinator / "roster.json", "--digest", made_now["digest"]]
    assert motet(capsys, *accept, home=partner)["changes"] == made_now["changes"]
    assert motet(capsys, "roster", "show", home=partner)["version"] == 2
    refused = motet(capsys, "roster", "leave", "partner-b", home=partner, fails=True)
    assert "can sign for itself only" in refused["message"]
    wrong = ["roster", "make", "--after", coordinator / "roster.json", partner / "site.json"]
    assert "is no enrolment" in motet(capsys, *wrong, home=coordinator, fails=True)["message"]


def test_a_chain_that_was_tampered_with_on_disk_is_refused(places):
    second, _ = rotated(places, "partner-b")
    path = places.site("partner-a").path / "roster.json"
    altered = json.loads(path.read_bytes())
    altered["succession"]["previous_until"] = (LATER + timedelta(days=999)).isoformat()
    with pytest.raises(ProtocolError, match="not signed by its coordinator"):
        accept_roster(places.site("partner-a"), json.dumps(altered).encode(), digest=second.digest)
    assert changes_of(second, old=places.site("partner-a").earlier_rosters[0]).rotated == ("partner-b",)
