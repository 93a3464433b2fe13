"""Two partners that prepare differently learn at which step, before the first round."""

import pytest

from data_contracts.errors import UpdateMismatch
from tasks.featurization import reference_set
from tasks.featurization.preparation_rules import rules_of
from tasks.featurization.reference_set import REFERENCE, STEPS, reference_digests, require_same
from tasks.featurization.standardization import Standardizer
from tasks.featurization.structure_recipe import StructureRecipe
from tests.featurization.partner import SECRET

SIMPLE = rules_of("simple")


def digests(*, secret=SECRET, endpoint_rules=SIMPLE, **structures):
    """Digests under the profile `simple` with some structure rules replaced."""
    rules = SIMPLE.structures.model_dump()
    for name, change in structures.items():
        rules[name] = {**rules[name], **change} if isinstance(change, dict) else change
    changed = SIMPLE.model_validate(SIMPLE.model_dump() | {"structures": rules}).structures
    return reference_digests(StructureRecipe(changed, secret), endpoint_rules)


@pytest.fixture(scope="module")
def ours():
    return digests()


def test_equal_preparation_gives_equal_digests(ours):
    assert list(ours) == list(STEPS)
    require_same(ours, digests(), us="partner-a", who="partner-b")


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"standardization": "published"}, "standardization"),
        ({"fingerprint": {"radius": 2}}, "fingerprint"),
        ({"fingerprint": {"n_bits": 1024}}, "fingerprint"),
        ({"fingerprint": {"counts": True}}, "fingerprint"),
        ({"fingerprint": {"permutation": "keyed"}}, "permutation"),
        ({"folds": {"rule": "published"}}, "folds"),
        ({"secret": bytes(32)}, "folds"),
        ({"endpoint_rules": rules_of("melloddy")}, "endpoint rules"),
    ],
)
def test_a_difference_is_named_by_its_first_step(ours, change, step):
    with pytest.raises(
        UpdateMismatch, match=f"'partner-b' .* another result of {step}, expected that of 'partner-a'"
    ) as caught:
        require_same(ours, digests(**change), us="partner-a", who="partner-b")
    assert caught.value.advice == reference_set.ADVICE[step]


def test_another_rdkit_is_named_first(ours, monkeypatch):
    monkeypatch.setattr(reference_set.rdBase, "rdkitVersion", "2031.03.1")
    with pytest.raises(UpdateMismatch, match="another result of RDKit"):
        require_same(ours, digests(), us="partner-a", who="partner-b")


def test_another_secret_differs_in_the_permutation_where_there_is_one():
    keyed = {"fingerprint": {"permutation": "keyed"}}
    with pytest.raises(UpdateMismatch, match="permutation"):
        require_same(digests(**keyed), digests(secret=bytes(32), **keyed), us="partner-a", who="partner-b")


def test_the_molecules_give_every_rule_of_standardization_work():
    standardizer = Standardizer()
    changed = [smiles for smiles in REFERENCE if standardizer.parent(smiles).smiles != smiles]
    assert any("." in smiles for smiles in changed)
    assert any("[2H]" in smiles for smiles in changed)
    assert any("@" in smiles for smiles in changed)
    assert {standardizer.parent(smiles).reason for smiles in REFERENCE} == {None, "no_carbon", "parse"}
