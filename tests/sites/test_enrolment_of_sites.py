"""From five empty directories to one roster and one secret, and what stops on the way."""

import asyncio
import stat

import pytest

from data_contracts.canonical_json import canonical_bytes
from data_contracts.envelope import Kind
from data_contracts.errors import ProtocolError, SettingsError
from flows.enrolment import accept_roster, await_acceptance, join_consortium, make_roster
from tests.sites import places as made
from tests.sites.places import PARTNERS


@pytest.fixture
def places(tmp_path):
    everybody = made.make_all(tmp_path)
    yield everybody
    everybody.close()


@pytest.fixture
def consortium(places):
    made.enrolled(places).serve()
    return places


def join(places, *names):
    for name in names:
        asyncio.run(join_consortium(places.site(name)))


def secret_of(places, name):
    return (places.site(name).keys / "consortium_secret").read_bytes()


def test_every_key_of_a_site_is_readable_by_its_owner_only(places):
    for site in places.sites.values():
        assert stat.S_IMODE(site.keys.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in site.keys.iterdir()}
        expected = {"identity", "sealing", "site_secret", "transport.pem"}
        expected |= {"steward"} if site.settings.role == "partner" else set()
        assert modes == dict.fromkeys(expected, 0o600)


def test_a_site_is_not_made_over_another(places, tmp_path):
    with pytest.raises(SettingsError, match="there is a site"):
        made.make(tmp_path, "partner-a")


def test_an_enrolment_holds_no_private_key(places):
    for site in places.sites.values():
        written = (site.path / "enrolment.json").read_text()
        assert "PRIVATE" not in written
        for name in ("identity", "sealing", "site_secret"):
            assert (site.keys / name).read_bytes().hex() not in written


def test_everybody_pins_the_same_roster(consortium):
    assert len({site.roster.digest for site in consortium.sites.values()}) == 1


def test_a_roster_is_made_by_a_coordinator_only(places):
    with pytest.raises(SettingsError, match="'partner-a' is a partner"):
        make_roster(places.site("partner-a"), [])


def test_a_roster_with_another_digest_than_the_told_one_is_not_pinned(consortium, tmp_path):
    data = canonical_bytes(consortium.site("coordinator").roster.model_dump(mode="json"))
    late = made.make(tmp_path, "partner-d")
    with pytest.raises(ProtocolError, match="digest is not the one you were told"):
        accept_roster(late, data, digest="0" * 64)
    with pytest.raises(ProtocolError, match="does not say of 'partner-d' what its enrolment says"):
        accept_roster(late, data, digest=consortium.site("coordinator").roster.digest)
    with pytest.raises(SettingsError, match="'partner-d' has pinned no roster"):
        _ = late.roster


def test_a_pinned_roster_stays(consortium, tmp_path):
    others = made.make_all(tmp_path / "others")
    files = [site.path / "enrolment.json" for name, site in others.sites.items() if name != "coordinator"]
    with pytest.raises(SettingsError, match="'coordinator' has pinned another roster"):
        make_roster(consortium.site("coordinator"), files)


def test_all_partners_come_to_share_one_secret_and_nobody_else_can_open_it(consortium):
    join(consortium, *PARTNERS)
    secret = secret_of(consortium, "partner-a")
    assert {secret_of(consortium, name) for name in PARTNERS} == {secret}
    for name in ("coordinator", "mailbox"):
        files = [path.read_bytes() for path in consortium.site(name).path.rglob("*") if path.is_file()]
        assert not [data for data in files if secret in data or secret.hex().encode() in data]
    asyncio.run(await_acceptance(consortium.site("coordinator")))


def test_joining_again_changes_nothing(consortium):
    join(consortium, *PARTNERS, *PARTNERS)
    assert len({secret_of(consortium, name) for name in PARTNERS}) == 1


def test_a_partner_waits_for_the_one_that_proposes_the_secret_and_names_it(consortium):
    with pytest.raises(ProtocolError, match="'partner-a' has not shared the partners' secret"):
        join(consortium, "partner-b")
    join(consortium, "partner-a", "partner-b")


def test_a_coordinator_does_not_lead_before_all_have_accepted(consortium):
    join(consortium, "partner-a", "partner-b")
    with pytest.raises(ProtocolError, match="have not accepted the roster: partner-c"):
        asyncio.run(await_acceptance(consortium.site("coordinator")))


def test_a_partner_with_another_secret_than_the_shared_one_stops(consortium):
    join(consortium, "partner-a")
    consortium.site("partner-b").in_run("first").install_secret("consortium_secret", b"o" * 32)
    with pytest.raises(SettingsError, match="'partner-b' holds another consortium_secret"):
        join(consortium, "partner-b")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"confirmation": "0" * 64}, "another secret than to all"),
        ({"sealed": {}}, "does not open"),
        ({"sealed": {"partner-b": "zz"}}, "does not open"),
        ({"more": 1}, "is malformed"),
    ],
)
def test_a_proposer_that_shares_no_secret_is_named(consortium, changed, named):
    join(consortium, "partner-a")
    body = consortium.site("partner-b").roster_board.read(Kind.CONSORTIUM_SECRET, "partner-a").json()
    slot_directory = consortium.site("mailbox").path / "mailbox" / "messages"
    (posted,) = slot_directory.rglob("consortium-secret/partner-a.json")
    posted.unlink()
    consortium.site("partner-a").roster_board.post_json(Kind.CONSORTIUM_SECRET, body | changed)
    with pytest.raises(ProtocolError, match=f"'partner-a'.*{named}"):
        join(consortium, "partner-b")
    assert not (consortium.site("partner-b").keys / "consortium_secret").exists()


def test_a_partner_that_accepted_another_roster_is_named(consortium):
    consortium.site("partner-a").roster_board.post_json(Kind.ROSTER_ACCEPTED, {"digest": "0" * 64})
    with pytest.raises(ProtocolError, match="'partner-a' has accepted another roster"):
        asyncio.run(await_acceptance(consortium.site("coordinator")))
