"""Partners that prepare differently refuse each other by name before anything of a round is sent."""

import asyncio

import pytest

from data_contracts.envelope import Kind
from data_contracts.errors import ProtocolError, UpdateMismatch
from data_contracts.plan import Lane, RoundPlan
from flows import partner as partner_flow
from flows.causes import named_cause
from flows.partner import Partner, take_part
from flows.sites import Site
from tasks.exchange.board import Board
from tasks.exchange.identity import Roster
from tasks.featurization import reference_set
from tasks.featurization.reference_exchange import PreparationCheck, keyed_digests
from tasks.featurization.reference_set import reference_digests
from tasks.featurization.structure_recipe import StructureRecipe
from tasks.rounds.coordinator import publish_plan
from tests.featurization.partner import SECRET, SMALL_QUORUMS, random_partner

RUN = "run-1"
NAMES = ("coordinator", "partner-a", "partner-b", "partner-c")
OTHER_RADIUS = SMALL_QUORUMS.model_validate(
    SMALL_QUORUMS.model_dump()
    | {"structures": {"fingerprint": {"radius": 2, "n_bits": 32_768}, "folds": {"rule": "generic_scaffold"}}}
)


@pytest.fixture
def boards(tmp_path):
    """Everybody's view of one mailbox."""
    sites = {name: Site(name, tmp_path / name) for name in NAMES}
    for site in sites.values():
        site.install_secret("consortium_secret", SECRET)
    roster = Roster(
        coordinator="coordinator",
        public_keys={name: site.identity.public_key.hex() for name, site in sites.items()},
    )
    return {
        name: site.board(mailbox=tmp_path / "mailbox", roster=roster, run_id=RUN)
        for name, site in sites.items()
    }


def plan_of_round_0(boards: dict[str, Board], *, seconds: float) -> RoundPlan:
    draft = RoundPlan(
        run_id=RUN,
        round=0,
        study="catalogue",
        cohort=NAMES[1:],
        threshold=3,
        lanes=(Lane(name="trained", length=1, ring_bits=64, value_bits=2),),
        deadline_seconds=seconds,
    )
    return publish_plan(boards["coordinator"], draft)


def digests(rules=SMALL_QUORUMS, *, secret=SECRET, run_id=RUN):
    plain = reference_digests(StructureRecipe(rules.structures, secret), rules)
    return keyed_digests(plain, secret=secret, run_id=run_id)


def checks(boards, **of_partners):
    made = {name: PreparationCheck(boards[name], given) for name, given in of_partners.items()}
    for check in made.values():
        check.announce()
    return made


def compared(check, plan, *, wait=False):
    asyncio.run(check.compare(plan, wait=wait))


@pytest.fixture
def plan(boards):
    return plan_of_round_0(boards, seconds=0.2)


def test_partners_with_another_radius_refuse_each_other_before_any_message_of_the_round(
    boards, tmp_path, monkeypatch
):
    async def no_training(job):
        raise AssertionError("a job was started")

    # The real step, without Prefect around it.
    monkeypatch.setattr(partner_flow, "featurization", partner_flow.featurization.fn)
    files = random_partner(seed=1).write(tmp_path / "files")
    plan = plan_of_round_0(boards, seconds=60)
    parts = [
        Partner(Site(name, tmp_path / name), boards[name], files=files, rules=rules, run_job=no_training)
        for name, rules in (("partner-a", SMALL_QUORUMS), ("partner-c", OTHER_RADIUS))
    ]

    async def play():
        return await asyncio.gather(*map(take_part, parts), return_exceptions=True)

    refused = [named_cause(error) for error in asyncio.run(play())]
    assert [type(error) for error in refused] == [UpdateMismatch, UpdateMismatch], refused
    for name, other, error in zip(
        ("partner-a", "partner-c"), ("partner-c", "partner-a"), refused, strict=True
    ):
        assert f"'{other}' prepares" in str(error)
        assert f"another result of fingerprint, expected that of '{name}'" in str(error)
        assert boards[name].read(Kind.ADVERT, name, plan=plan) is None
        said = boards["coordinator"].read(Kind.REFUSAL, name, plan=plan)
        assert said.json() == {"reason": str(error)}


def test_equal_partners_go_on_and_wait_for_the_late_one(boards, plan):
    made = checks(boards, **{"partner-a": digests(), "partner-b": digests()})
    compared(made["partner-a"], plan, wait=True)  # partner-c never comes: half of the deadline, then on
    late = checks(boards, **{"partner-c": digests()})
    for check in (*made.values(), *late.values()):
        compared(check, plan)


def test_whoever_comes_late_is_compared_in_a_later_round(boards, plan):
    made = checks(boards, **{"partner-a": digests(), "partner-b": digests()})
    compared(made["partner-a"], plan)
    checks(boards, **{"partner-c": digests(OTHER_RADIUS)})
    with pytest.raises(UpdateMismatch, match=r"'partner-c' .* fingerprint"):
        compared(made["partner-a"], plan)


def test_another_rdkit_is_named(boards, plan, monkeypatch):
    ours = digests()
    monkeypatch.setattr(reference_set.rdBase, "rdkitVersion", "2031.03.1")
    made = checks(boards, **{"partner-a": ours, "partner-b": digests()})
    for name, other in (("partner-a", "partner-b"), ("partner-b", "partner-a")):
        with pytest.raises(UpdateMismatch, match=f"'{other}' .* RDKit, expected that of '{name}'") as refused:
            compared(made[name], plan)
        assert "RDKit version" in refused.value.advice


def test_another_secret_is_named_as_such(boards, plan):
    made = checks(boards, **{"partner-a": digests(), "partner-b": digests(secret=bytes(32))})
    with pytest.raises(UpdateMismatch, match="another result of secret"):
        compared(made["partner-a"], plan)


def test_a_partner_that_resumes_with_another_preparation_is_refused_by_itself(boards):
    checks(boards, **{"partner-a": digests()})
    again = PreparationCheck(boards["partner-a"], digests(OTHER_RADIUS))
    with pytest.raises(UpdateMismatch, match="'partner-a at the start of the run'"):
        again.announce()


def test_what_is_said_tells_nothing_without_the_secret_and_differs_from_run_to_run(boards):
    plain = reference_digests(StructureRecipe(SMALL_QUORUMS.structures, SECRET), SMALL_QUORUMS)
    checks(boards, **{"partner-a": digests()})
    said = boards["coordinator"].read(Kind.PREPARED, "partner-a").json()
    assert not set(said.values()) & set(plain.values())
    assert not set(said.values()) & set(digests(run_id="run-2").values())
    assert not set(said.values()) & set(digests(secret=bytes(32)).values())


@pytest.mark.parametrize("value", [[], {"RDKit": "0"}, "text"])
def test_what_is_malformed_is_refused_by_name(boards, plan, value):
    made = checks(boards, **{"partner-a": digests()})
    boards["partner-b"].post_json(Kind.PREPARED, value)
    with pytest.raises(ProtocolError, match="'partner-b' says of its preparation is malformed"):
        compared(made["partner-a"], plan)
