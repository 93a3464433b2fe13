"""How a model prepares a molecule: what its card says of it, and the permutation that only partners hold.

Why: a trunk learned from bits of one profile is worthless with bits of another, so the profile travels with it.
Runs: on the coordinator for the trunk, on a partner for its own model. Source: own; docs/decisions/0025.
"""

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from rdkit import rdBase

from data_contracts.canonical_json import digest_of
from data_contracts.errors import UpdateMismatch
from tasks.featurization import fingerprints, standardization
from tasks.featurization.permutations import Permutation
from tasks.featurization.preparation_rules import StructureRules
from tasks.featurization.reference_set import REFERENCE
from tasks.featurization.structure_recipe import StructureRecipe
from tasks.model_registration import molecules, scoring

DEFAULT_RULES = StructureRules()


class RecipeCard(BaseModel):
    """What ``card.json`` says of the recipe, beside fingerprint and standardization.

    Attributes:
        identity: What made two parents one structure in training.
        permutation: Of the fingerprint's bits; a trunk that learned from permuted ones does not hold it.
        rdkit: Version that prepared the training data.
        parameters_sha256: Digest of all public parameters of the recipe.
        reference: Public molecules, as SMILES.
        reference_sha256: Digest of what that RDKit made of them, as ``molecules.Preparer.digest`` gives it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: Literal["parent", "tautomer_hash"] = "parent"
    permutation: Literal["none", "keyed", "published"] = "none"
    rdkit: str
    parameters_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    reference: tuple[str, ...]
    reference_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class ModelRecipe:
    """The rules by which a model's training structures were prepared, and the permutation if its holder may have it.

    Attributes:
        rules: As the profile declares them.
        permutation: New place of each bit; None without one, and in a trunk.
    """

    rules: StructureRules = DEFAULT_RULES
    permutation: Permutation | None = field(default=None, repr=False)

    @classmethod
    def of(cls, rules: StructureRules, *, secret: bytes | None) -> Self:
        """Make the recipe of a partner, who has the consortium's secret, or of the coordinator, who has not."""
        return cls(rules, None if secret is None else StructureRecipe(rules, secret).permutation)

    @property
    def _public(self) -> StructureRecipe:
        return StructureRecipe(self.rules, b"")  # nothing that is asked of it here depends on the secret

    @property
    def standardization(self) -> str:
        """Name of the standardization, as ``standardization.standardizer_of`` takes it."""
        return str(self._public.parameters["standardization"])

    @property
    def fingerprint(self) -> dict[str, str | int | bool]:
        """Parameters of the fingerprint, as ``fingerprints.FINGERPRINT`` spells them."""
        declared = self.rules.fingerprint.model_dump(exclude={"permutation"})
        return {"kind": str(fingerprints.FINGERPRINT["kind"]), **declared}

    def card(self) -> RecipeCard:
        """What the card says; prepares the reference molecules."""
        card = {"standardization": self.standardization, "fingerprint": self.fingerprint}
        return RecipeCard(
            identity=self.rules.identity,
            permutation=self.rules.fingerprint.permutation,
            rdkit=rdBase.rdkitVersion,
            parameters_sha256=digest_of(self._public.parameters),
            reference=REFERENCE,
            reference_sha256=molecules.Preparer(card, standardization, fingerprints).digest(REFERENCE),
        )

    def arrays(self, *, has_head: bool) -> dict[str, npt.NDArray[np.uint16]]:
        """What goes beside the weights: the permutation, in a partner's own model and nowhere else.

        Args:
            has_head: Whether the model is a partner's own.

        Raises:
            UpdateMismatch: If a partner's model would lack its permutation, or a trunk would give it away.
        """
        if has_head and self.permutation is None and self.rules.fingerprint.permutation != "none":
            raise UpdateMismatch(
                "a partner's model needs the permutation of its fingerprint bits, and got none",
                advice="register it at the partner, who has the consortium's secret",
            )
        if not has_head and self.permutation is not None:
            raise UpdateMismatch(
                "a trunk got the permutation of the fingerprint bits, which only partners hold; nothing was written"
            )
        if self.permutation is None:
            return {}
        return {scoring.PERMUTATION: self.permutation.astype(np.uint16)}
