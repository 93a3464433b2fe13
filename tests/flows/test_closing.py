"""A partner takes its model from the rounds that it saw, whatever the closing message says."""

from types import SimpleNamespace

import pytest

from data_contracts.errors import AgreementViolation, ProtocolError
from data_contracts.references import BlobReference
from flows.federated_training import training_parameters
from flows.partner import _best_round, _same_run
from flows.settings import RunSettings

TRUNKS = {
    number: BlobReference(sha256=f"{number:064x}", bytes=10, contract="shared-model@1") for number in (1, 2)
}


def _partner(said):
    message = None if said is None else SimpleNamespace(json=lambda: said)
    roster = SimpleNamespace(coordinator="coordinator")
    return SimpleNamespace(board=SimpleNamespace(roster=roster, read=lambda *_: message))


def test_the_chosen_model_is_that_of_a_round_that_was_played():
    assert _best_round(_partner({"best_round": 2, "trunk": TRUNKS[2].model_dump()}), TRUNKS) == 2


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {"best_round": 3, "trunk": TRUNKS[2].model_dump()},
        {"best_round": "2", "trunk": TRUNKS[2].model_dump()},
        {"best_round": 1, "trunk": TRUNKS[2].model_dump()},
        {"best_round": 2},
    ],
)
def test_a_closing_message_with_another_model_is_refused(said):
    with pytest.raises(ProtocolError, match="none of its rounds"):
        _best_round(_partner(said), TRUNKS)


@pytest.mark.parametrize("changed", [{"phase": "tune"}, {"search": "other"}, {"warm_start": "ab" * 32}])
def test_a_run_keeps_its_phase_and_its_start(changed):
    first = training_parameters(RunSettings())
    plan = SimpleNamespace(round=2)
    assert _same_run(first, None, plan) == _same_run(first, first, plan) == first
    with pytest.raises(AgreementViolation, match="another phase or start"):
        _same_run(first.model_copy(update=changed), first, plan)
