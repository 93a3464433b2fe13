"""Public molecules that every partner prepares before the first round, and digests of what each step makes of them.

Why: another RDKit, profile or secret gives other bits without any error; compared step by step, the difference has a
name. Runs: on the partner. Source: the idea of MELLODDY-TUNER's ``hash_reference_set``, which says only that something
differs. The molecules are well-known drugs, chosen so that every rule of standardization has work to do.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from rdkit import rdBase

from data_contracts.canonical_json import canonical_bytes
from data_contracts.errors import UpdateMismatch
from tasks.featurization.permutations import permuted_rows
from tasks.featurization.preparation_rules import PreparationRules
from tasks.featurization.structure_recipe import StructureRecipe
from tasks.featurization.worker import Featurizer

REFERENCE = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]",
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "CN(C)C(=N)NC(=N)N.Cl",
    "Cc1ccc(cc1Nc2nccc(n2)c3cccnc3)NC(=O)c4ccc(cc4)CN5CCN(CC5)C",
    "C[C@H](N)Cc1ccccc1.OS(=O)(=O)O",
    "CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5",
    "Nc1nc2c(ncn2COCCO)c(=O)[nH]1",
    "[2H]C([2H])([2H])Oc1ccc2[nH]cc(CCN(C)C)c2c1",
    "C[N+](C)(C)CCOC(C)=O.[Cl-]",
    "OC(=O)c1cn(C2CC2)c2cc(N3CCNCC3)c(F)cc2c1=O",
    "CC1=C(C(=O)C2=CC=CC=C2O1)O",
    "O=[N+]([O-])c1ccc(cc1)C(O)C(CO)NC(=O)C(Cl)Cl",
    "CC(C)CCO",
    "N[Pt](N)(Cl)Cl",
    "not a structure",
)
STEPS = ("RDKit", "standardization", "fingerprint", "permutation", "folds", "endpoint rules")


def reference_digests(recipe: StructureRecipe, rules: PreparationRules) -> dict[str, str]:
    """Digest what each step makes of the reference molecules.

    Args:
        recipe: Rules of structures under the consortium's secret.
        rules: The profile.

    Returns:
        First 32 hexadecimal digits of a SHA-256 for each of ``STEPS``, in their order. They tell nothing about the
        secret, and nothing about a partner's data.
    """
    answer = Featurizer(recipe.options)(REFERENCE)
    parents, reasons = answer.column("parent").to_pylist(), answer.column("reason").to_pylist()
    bits, counts = answer.column("bits"), answer.column("counts")
    starts, flat = bits.offsets.to_numpy().astype(np.int64), bits.flatten().to_numpy()
    identity = np.arange(recipe.rules.fingerprint.n_bits)
    permuted, _ = permuted_rows(starts, flat, identity if recipe.permutation is None else recipe.permutation)
    folds = [None if text is None else recipe.fold_of(text) for text in answer.column("scaffold").to_pylist()]
    contents = (
        rdBase.rdkitVersion,
        [recipe.parameters["standardization"], parents, reasons],
        [starts.tolist(), flat.tolist(), counts.to_pylist()],
        permuted.tolist(),
        [recipe.rules.folds.model_dump(mode="json"), folds],
        rules.model_dump(mode="json", exclude={"structures"}),
    )
    return {
        step: hashlib.sha256(canonical_bytes([step, content])).hexdigest()[:32]
        for step, content in zip(STEPS, contents, strict=True)
    }


def require_same(ours: Mapping[str, str], theirs: Mapping[str, str], *, us: str, who: str) -> None:
    """Refuse a partner whose preparation differs from ours.

    Args:
        ours: As ``reference_digests`` gives them, or keyed.
        theirs: The other partner's.
        us: This partner.
        who: The other partner.

    Raises:
        UpdateMismatch: Names the first step that differs; what follows it differs because of it.
    """
    for step in ours:
        if ours[step] != theirs.get(step):
            raise UpdateMismatch(
                f"'{who}' prepares the reference molecules in another way: got another result of {step}, expected that "
                f"of '{us}'; nothing was trained",
                advice=ADVICE[step],
            )


ADVICE = {
    "secret": "compare keys/consortium_secret: one of the two holds another one",
    "RDKit": "install the RDKit version that the consortium agreed on",
    "standardization": "use the same profile; `motet prepare --profile` names it",
    "fingerprint": "use the same profile: radius, number of bits, counts and stereo decide",
    "permutation": "compare the consortium's secret and the profile's permutation",
    "folds": "compare the consortium's secret and the profile's fold rule",
    "endpoint rules": "use the same profile and version for the rules of assays",
}
