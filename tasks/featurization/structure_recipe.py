"""What happens to a structure under a profile and the consortium's secret, ready to use.

Why: rules are declared once; here they become worker options, keys and a permutation, and one digest that names
them all, so that what was made by other rules or another RDKit is never taken for the same.
Runs: on the partner. Source: own.
"""

import hmac
import json
from dataclasses import asdict, dataclass
from functools import cached_property

from rdkit import rdBase

from tasks.featurization.folds import N_FOLDS, fold_of_scaffold, structure_key
from tasks.featurization.permutations import Permutation, keyed_permutation, published_permutation
from tasks.featurization.preparation_rules import StructureRules
from tasks.featurization.published_folds import published_fold
from tasks.featurization.worker import STANDARDIZATIONS, Options
from tasks.featurization.worker_pool import Deadlines

VERSION = 2  # of what this folder does to structures and no other name stands for
NAME_PURPOSE, DIGEST_PURPOSE = b"motet/cache-name/v1", b"motet/structure-recipe/v1"
PUBLISHED_DEADLINES = Deadlines(chunk_seconds=60.0, seconds_per_structure=1.0)  # canonical tautomers


@dataclass(frozen=True)
class StructureRecipe:
    """Rules of structures under a secret.

    Attributes:
        rules: As declared.
        secret: The consortium's 32-byte secret.
    """

    rules: StructureRules
    secret: bytes

    @property
    def options(self) -> Options:
        """What the workers do; holds no key."""
        fingerprint = self.rules.fingerprint
        return Options(
            standardization=self.rules.standardization,
            identity=self.rules.identity,
            scaffold="published" if self.rules.folds.rule == "published" else "generic",
            radius=fingerprint.radius,
            n_bits=fingerprint.n_bits,
            counts=fingerprint.counts,
            chirality=fingerprint.chirality,
        )

    @property
    def deadlines(self) -> Deadlines:
        """How long the workers may take."""
        return Deadlines() if self.rules.standardization == "fast" else PUBLISHED_DEADLINES

    @property
    def parameters(self) -> dict[str, object]:
        """Everything that decides what a structure becomes, but the secret: it travels with every artifact."""
        return {
            "version": VERSION,
            "standardization": STANDARDIZATIONS[self.rules.standardization],
            "options": asdict(self.options),
            "rdkit": rdBase.rdkitVersion,
        }

    @cached_property
    def digest(self) -> str:
        """Keyed name of the parameters, 32 hexadecimal characters."""
        text = json.dumps(self.parameters, sort_keys=True).encode()
        return hmac.digest(self.secret, DIGEST_PURPOSE + text, "sha256")[:16].hex()

    @cached_property
    def name_key(self) -> bytes:
        """Key for the names of structures as they are written."""
        return hmac.digest(self.secret, NAME_PURPOSE, "sha256")

    @cached_property
    def permutation(self) -> Permutation | None:
        """New place of each bit, or None."""
        fingerprint = self.rules.fingerprint
        if fingerprint.permutation == "none":
            return None
        permute = keyed_permutation if fingerprint.permutation == "keyed" else published_permutation
        return permute(fingerprint.n_bits, key=self.secret)

    def structure_key(self, text: str) -> str:
        """Name a parent, or the form that its tautomers share."""
        return structure_key(text, secret=self.secret)

    def fold_of(self, scaffold: str) -> int:
        """Fold of a scaffold."""
        if self.rules.folds.rule == "published":
            return published_fold(scaffold, key=self.secret, n_folds=N_FOLDS)
        return fold_of_scaffold(scaffold, secret=self.secret)
