"""What a partner's policy grants, and the name of everything that it does not."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import AgreementViolation, ProtocolError, SettingsError
from data_contracts.plan import Lane, RoundPlan
from data_contracts.references import BlobReference
from flows.cli.parser import build_parser, load_handler
from flows.settings import RunSettings
from flows.site_settings import (
    Policy,
    RunOpening,
    SiteSettings,
    check_plan,
    checked,
    read_opening,
    read_settings,
)
from tasks.featurization.preparation_rules import rules_of
from tasks.local_training.jobs import Machine

MACHINE_OPTIONS = {"device": "cpu", "precision": "bfloat16"}
NOW = datetime(2026, 11, 25, tzinfo=UTC)
ROSTER = "a" * 64
POLICY = Policy(data_sets=("qsar-2026",), expires=NOW + timedelta(days=1), max_hidden=64, max_rounds=10)
SETTINGS = RunSettings(data="qsar-2026", partners=3, hidden=64, rounds=10, pooled_arm=False)
OPENING = RunOpening(roster=ROSTER, settings=SETTINGS)
PLAN = RoundPlan(
    run_id="first",
    round=1,
    study="qsar-training",
    cohort=("partner-a", "partner-b", "partner-c"),
    threshold=3,
    lanes=(Lane(name="update", length=1000, ring_bits=16, value_bits=12, clip=0.25),),
    model_in=BlobReference(sha256="b" * 64, bytes=4000, contract="shared-model@1"),
    parameters={"hidden": 64, "rounds": 10, "n_catalogue": 3},
)


@dataclasses.dataclass(frozen=True)
class Asked:
    """A plan, the opening of its run, and the policy that it meets."""

    plan: RoundPlan = PLAN
    opening: RunOpening = OPENING
    policy: Policy = POLICY
    now: datetime = NOW

    def check(self):
        check_plan(
            self.plan, opening=self.opening, policy=self.policy, roster=ROSTER, who="partner-a", now=self.now
        )


def plan(**changed):
    return Asked(plan=PLAN.model_copy(update=changed))


def opened(**changed):
    return Asked(opening=OPENING.model_copy(update={"settings": SETTINGS.model_copy(update=changed)}))


def test_what_is_granted_is_answered():
    Asked().check()


OWN_RULES = rules_of("melloddy").model_copy(update={"name": "house"})
HUGE = PLAN.lanes[0].model_copy(update={"length": 2**31})
MODEL = BlobReference(sha256="b" * 64, bytes=2**31, contract="shared-model@1")


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (opened(data="salts-2026"), "the data set 'salts-2026' was never granted"),
        (opened(rounds=11), "11 rounds, at most 10 are granted"),
        (opened(hidden=65), "a trunk of 65, at most 64 is granted"),
        (opened(layers=5), "5 layers, at most 4 are granted"),
        (opened(local_epochs=11), "11 local epochs, at most 10 are granted"),
        (plan(study="safety-signals"), "the study 'safety-signals' was never granted"),
        (plan(round=13), "a round after 12"),
        (plan(cohort=("partner-a", "partner-b")), "a cohort of 2, at least 3"),
        (plan(lanes=(HUGE,)), "a vector of 4294967296 bytes"),
        (plan(model_in=MODEL), "a model of 2147483648 bytes"),
        (plan(parameters={"hidden": 63}), "another 'hidden' than its run was opened with"),
        (plan(parameters={"n_bits": 32_000}), "another 'n_bits' than its run was opened with"),
        (opened(profile=OWN_RULES), "rules of preparation 'house' with digest"),
        (Asked(policy=POLICY.model_copy(update={"profiles": ("melloddy",)})), "'simple' with digest"),
        (plan(parameters={"learning_rate": 1.0}), "another 'learning_rate'"),
        (Asked(now=POLICY.expires), "expired on 2026-11-26"),
        (Asked(opening=OPENING.model_copy(update={"roster": "c" * 64})), "another roster"),
        (Asked(policy=POLICY.model_copy(update={"data_sets": ()})), "never granted"),
    ],
)
def test_whatever_is_not_granted_is_refused_by_name(asked, named):
    with pytest.raises(AgreementViolation, match="'partner-a' refuses the plan of round") as refusal:
        asked.check()
    assert named in str(refusal.value)


def test_rules_of_ones_own_are_granted_by_their_digest():
    granted = POLICY.model_copy(update={"profiles": (OWN_RULES.digest,)})
    dataclasses.replace(opened(profile=OWN_RULES), policy=granted).check()
    said = canonical_bytes(opened(profile=OWN_RULES).opening.model_dump(mode="json"))
    assert read_opening(said, who="coordinator").settings.rules == OWN_RULES


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(AgreementViolation, match=r"65.*; .*11 rounds|11 rounds.*; .*65"):
        opened(hidden=65, rounds=11).check()


@given(hidden=st.integers(1, 8192), rounds=st.integers(1, 1000), round_number=st.integers(0, 100_000))
def test_nothing_beyond_a_bound_is_ever_answered(hidden, rounds, round_number):
    settings = SETTINGS.model_copy(update={"hidden": hidden, "rounds": rounds})
    asked = Asked(
        plan=PLAN.model_copy(
            update={"round": round_number, "parameters": {"hidden": hidden, "rounds": rounds}}
        ),
        opening=OPENING.model_copy(update={"settings": settings}),
    )
    if hidden <= 64 and rounds <= 10 and round_number <= 12:
        asked.check()
    else:
        with pytest.raises(AgreementViolation):
            asked.check()


@given(data=st.binary(max_size=200))
def test_hostile_openings_are_a_refusal(data):
    with pytest.raises(ProtocolError, match="'coordinator' opened a run that is refused"):
        read_opening(data, who="coordinator")


@pytest.mark.parametrize("changed", [{"entrypoint": "os:system"}, {"v": 2}, {"roster": "A" * 64}])
def test_an_opening_with_anything_else_in_it_is_refused(changed):
    import json

    written = json.dumps(OPENING.model_dump(mode="json") | changed).encode()
    with pytest.raises(ProtocolError, match="refused at"):
        read_opening(written, who="coordinator")


def test_a_policy_with_an_unknown_field_is_refused_by_its_name(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text('{"data_sets": [], "expires": "2027-01-01T00:00:00Z", "max_hiden": 9}')
    with pytest.raises(SettingsError, match=r"policy\.json cannot work: max_hiden"):
        read_settings(Policy, path, example="motet init")


def test_a_site_that_was_never_made_says_how_to_make_it(tmp_path):
    with pytest.raises(SettingsError, match=r"no site\.json") as refusal:
        read_settings(SiteSettings, tmp_path / "site.json", example="`motet init partner --help`")
    assert "motet init" in refusal.value.advice


@pytest.mark.parametrize(
    "said", [{"role": "partner"}, {"role": "coordinator", "listen": "0.0.0.0:1"}, {"role": "mailbox"}]
)
def test_a_site_has_what_its_role_needs_and_nothing_else(said):
    with pytest.raises(ValueError, match="and nobody else"):
        SiteSettings(name="somebody", **said)


def test_a_partner_says_what_it_computes_on_and_no_plan_or_opening_can(tmp_path):
    init = (
        "init partner --name acme --activities a.csv --structures s.csv --assays t.csv --expires 2027-01-01"
    )
    options = [part for name, value in MACHINE_OPTIONS.items() for part in (f"--{name}", value)]
    arguments = build_parser().parse_args([*init.split(), *options, "--home", str(tmp_path / "acme")])
    load_handler(arguments)(arguments)
    written = read_settings(SiteSettings, tmp_path / "acme" / "site.json", example="motet init")
    assert written.machine == Machine(**MACHINE_OPTIONS)
    for name in (*MACHINE_OPTIONS, "machine"):
        assert name not in RunOpening.model_fields
        assert name not in RunSettings.model_fields
        assert name not in RoundPlan.model_fields


def test_a_site_without_a_word_on_its_machine_takes_what_there_is():
    assert SiteSettings(role="coordinator", name="coordinator").machine == Machine()
    with pytest.raises(SettingsError, match=r"machine\.device"):
        checked(SiteSettings, {"role": "coordinator", "name": "c", "machine": {"device": "tpu"}})
