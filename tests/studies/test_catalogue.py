"""The consortium learns which endpoints three partners share, and not whose they are."""

import asyncio
import dataclasses
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import AgreementViolation, ProtocolError, UpdateMismatch
from data_contracts.plan import threshold_for
from data_contracts.references import BlobReference
from flows.partner_work import _repeat_count
from tasks.rounds.coordinator import conduct, publish_plan
from tasks.studies import catalogue
from tasks.studies.catalogue import CATALOGUE, Catalogue, PartnerInputs
from tests.local_training.conftest import rewrite, write_prepared

LISTED = ("A0>=6.5", "A1>=6.5", "A2>=6.5", "A3>=6.5", "A4>=6.5", "unknown>=5")


@pytest.fixture
def consortium(make_consortium):
    """A0 and A1 are trained by all four, A3 by three, A2 by two, A4 by nobody: it is not in training."""
    made = make_consortium(4)
    for number, name in enumerate(made.partners):
        prepared = write_prepared(made.root / name / "prepared", seed=number)
        if number >= 2:
            own = {2} if number == 2 else {2, 3}
            names = [f"A{k}>=6.5" if k not in own else f"own-{k}>=6.5" for k in range(5)]
            rewrite(prepared / "endpoints.arrow", endpoint_id=pa.array(names))
    return made


def _plan(consortium, listed=LISTED, **changes):
    blobs = consortium.boards["coordinator"].mailbox.blobs
    plan = consortium.plan(*catalogue.lanes(len(listed)), threshold=3, round_number=0)
    return plan.model_copy(
        update={
            "study": "catalogue",
            "model_in": catalogue.publish_list(blobs, listed),
            "parameters": {"n_partners": 4},
            **changes,
        }
    )


def _run(consortium, plan, study=CATALOGUE):
    blobs = consortium.boards["coordinator"].mailbox.blobs

    async def partner(name):
        directory = consortium.root / name / "r0"
        inputs = PartnerInputs(dataset=consortium.root / name / "prepared", blobs=blobs)
        CATALOGUE.accept(plan)
        await CATALOGUE.compute(plan, inputs, directory)
        return await consortium.contributor(name).contribute(plan, directory)

    async def everybody():
        board = consortium.boards["coordinator"]
        publish_plan(board, plan)
        return await asyncio.gather(
            conduct(board, plan, study=study, inputs=blobs), *map(partner, consortium.partners)
        )

    return asyncio.run(everybody())[0]


@pytest.mark.parametrize("n_partners", [3, 4, 5, 7, 10, 20, 60])
@pytest.mark.parametrize("more", [0, 1, 5])
def test_two_honest_and_three_in_all_stay_behind_a_shared_row_whoever_drops_out_and_colludes(
    n_partners, more
):
    threshold = min(threshold_for(n_partners) + more, n_partners)
    plan = SimpleNamespace(threshold=threshold, parameters={"n_partners": n_partners})
    survivors = catalogue.partners_needed(plan) - (n_partners - threshold)
    colluding = min(2 * threshold - n_partners - 1, threshold - 2)
    assert survivors >= 3
    assert survivors - colluding >= 2
    assert catalogue.partners_needed(plan) <= n_partners, "what everybody trains is always shared"


@pytest.mark.parametrize(
    ("threshold", "expected"), [(4, ("A0>=6.5", "A1>=6.5")), (3, ("A0>=6.5", "A1>=6.5"))]
)
def test_of_four_partners_all_must_train_a_shared_row(consortium, threshold, expected):
    outcome = _run(consortium, _plan(consortium, threshold=threshold))
    blobs = consortium.boards["coordinator"].mailbox.blobs
    kept = catalogue.read_catalogue(
        blobs, BlobReference.model_validate(outcome["catalogue"]), who="coordinator"
    )
    assert kept.endpoints == expected
    assert kept.partners == (4, 4)
    assert set(outcome) == {"catalogue", "n_catalogue", "metrics", "survivors"}
    assert outcome["metrics"] == {"catalogue/listed": 6.0, "catalogue/shared": float(len(expected))}


def test_a_coordinator_that_announces_a_lonely_endpoint_as_common_is_found_out(consortium):
    def everything(plan, total, blobs):
        honest = CATALOGUE.combine(plan, total, blobs)
        return honest | {
            "catalogue": catalogue.publish_catalogue(
                blobs, Catalogue(endpoints=LISTED, partners=(4,) * len(LISTED))
            ).model_dump(),
            "n_catalogue": len(LISTED),
        }

    plan = _plan(consortium)
    _run(consortium, plan, study=dataclasses.replace(CATALOGUE, combine=everything))
    partner = SimpleNamespace(board=consortium.boards["partner-a"])
    with pytest.raises(UpdateMismatch, match="catalogue, n_catalogue"):
        _repeat_count(partner, plan)


def test_an_empty_list_is_a_round_like_any_other(consortium):
    assert _run(consortium, _plan(consortium, listed=()))["n_catalogue"] == 0


def test_places_are_positions_in_the_list_for_endpoints_that_are_trained(consortium):
    places = catalogue.places_of(consortium.root / "partner-a" / "prepared", LISTED)
    assert places.tolist() == [0, 1, 2, 3, -1]
    assert places.dtype == np.int32
    assert catalogue.presence(places, n_catalogue=6).tolist() == [1, 1, 1, 1, 0, 0]


def test_a_plan_with_another_lane_or_no_list_is_refused(consortium):
    with pytest.raises(AgreementViolation):
        CATALOGUE.accept(_plan(consortium, model_in=None))
    with pytest.raises(AgreementViolation):
        CATALOGUE.accept(_plan(consortium, parameters={"n_partners": 4, "surprise": 1}))
    with pytest.raises(AgreementViolation):
        CATALOGUE.accept(_plan(consortium, parameters={"n_partners": 3}))


@pytest.mark.parametrize("content", [["b", "a"], ["a", "a"], [1], {"a": 1}, "a"])
def test_a_list_that_is_no_sorted_list_of_names_is_the_coordinators_fault(consortium, content):
    blobs = consortium.boards["coordinator"].mailbox.blobs
    reference = blobs.put([canonical_bytes(content)], contract=catalogue.LIST_CONTRACT)
    with pytest.raises(ProtocolError, match="coordinator"):
        catalogue.read_list(blobs, reference, who="coordinator")


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"endpoints": ["a"], "partners": []},
        {"endpoints": ["b", "a"], "partners": [3, 3]},
        {"endpoints": ["a"], "partners": [0]},
        {"endpoints": ["a"], "partners": ["3"]},
    ],
)
def test_a_catalogue_that_is_none_is_the_coordinators_fault(consortium, content):
    blobs = consortium.boards["coordinator"].mailbox.blobs
    reference = blobs.put([canonical_bytes(content)], contract=catalogue.CONTRACT)
    with pytest.raises(ProtocolError, match="of 'coordinator' is no list of endpoints"):
        catalogue.read_catalogue(blobs, reference, who="coordinator")


def test_a_second_count_in_another_round_is_refused(consortium):
    """Two counts over other cohorts would tell which endpoints one partner trains."""
    with pytest.raises(AgreementViolation):
        CATALOGUE.accept(_plan(consortium, round=5))


def test_a_list_of_another_contract_or_too_large_is_refused_before_it_is_read(consortium):
    blobs = consortium.boards["coordinator"].mailbox.blobs
    for reference in (
        BlobReference(sha256="0" * 64, bytes=10, contract="trunk@1"),
        BlobReference(sha256="0" * 64, bytes=catalogue.MAX_BYTES + 1, contract=catalogue.LIST_CONTRACT),
    ):
        with pytest.raises(ProtocolError, match="expected endpoint-list@1"):
            catalogue.read_list(blobs, reference, who="coordinator")
