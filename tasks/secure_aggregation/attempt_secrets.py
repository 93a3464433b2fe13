"""A partner's secrets for one attempt: everything derives from one root secret and the plan.

Why: fresh keys each attempt, bound to what was agreed; a restart with the same root rebuilds every key.
Runs: on the partner; the coordinator rebuilds the mask keys of partners that dropped out.
Source: Bonawitz et al. 2017 §6 for the two key pairs; the second, post-quantum half of each is own.
"""

from dataclasses import dataclass, field

from data_contracts.plan import HYBRID, PairSecrets
from tasks.secure_aggregation.key_encapsulation import KemPair
from tasks.secure_aggregation.keys import KEY_BYTES, KeyPair, derive


@dataclass(frozen=True)
class PublicKeys:
    """What others see of a pair: an X25519 key, and an ML-KEM-768 key that is empty where the plan has none."""

    dh: bytes
    kem: bytes


@dataclass(frozen=True)
class HybridPair:
    """An X25519 key pair and, if the plan says so, an ML-KEM-768 key pair beside it, both from one seed."""

    dh: KeyPair = field(repr=False)
    kem: KemPair | None = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes, *, label: str, context: bytes, pair_secrets: PairSecrets) -> "HybridPair":
        """Derive both; the same arguments give the same pairs.

        Raises:
            AgreementViolation: If the plan asks for ML-KEM and this installation has none.
        """
        return cls(
            dh=KeyPair.from_seed(seed, label=label, context=context),
            kem=KemPair.from_seed(seed, label=f"{label}-kem", context=context)
            if pair_secrets == HYBRID
            else None,
        )

    @property
    def public(self) -> PublicKeys:
        """The public halves."""
        return PublicKeys(dh=self.dh.public, kem=self.kem.public if self.kem else b"")

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The secret in a ciphertext of ML-KEM, or nothing where the plan has none."""
        return self.kem.decapsulate(ciphertext) if self.kem else b""


@dataclass(frozen=True)
class AttemptSecrets:
    """A partner's secrets for one attempt.

    Attributes:
        cipher: Pair that shares are sealed under; its secret half is never shared, or the coordinator could
            read the shares that a dropped partner holds.
        mask: Pair of the pairwise masks.
        mask_seed: What ``mask`` and all pair secrets that this partner gives derive from; shared among the
            holders, to remove this partner's pairwise masks should it drop out.
        self_seed: Key of the self mask; shared among the holders, to remove it once this partner survived.
        polynomial_keys: Keys of the two sharing polynomials, for ``self_seed`` and ``mask_seed``.
    """

    cipher: HybridPair = field(repr=False)
    mask: HybridPair = field(repr=False)
    mask_seed: bytes = field(repr=False)
    self_seed: bytes = field(repr=False)
    polynomial_keys: tuple[bytes, bytes] = field(repr=False)

    @classmethod
    def from_root(cls, root: bytes, *, plan_digest: bytes, pair_secrets: PairSecrets) -> "AttemptSecrets":
        """Derive all secrets of an attempt.

        Args:
            root: 32 secret bytes, used for one attempt only.
            plan_digest: SHA-256 of the plan, 32 bytes.
            pair_secrets: As the plan fixes them.

        Raises:
            ValueError: If the root has another size.
            AgreementViolation: If the plan asks for ML-KEM and this installation has none.
        """
        if len(root) != KEY_BYTES:
            raise ValueError(f"the attempt's root has {len(root)} bytes, expected {KEY_BYTES}")
        mask_seed = derive(root, label="mask-seed", context=plan_digest)
        return cls(
            cipher=HybridPair.from_seed(
                root, label="cipher-key", context=plan_digest, pair_secrets=pair_secrets
            ),
            mask=mask_pair(mask_seed, plan_digest=plan_digest, pair_secrets=pair_secrets),
            mask_seed=mask_seed,
            self_seed=derive(root, label="self-seed", context=plan_digest),
            polynomial_keys=(
                derive(root, label="self-polynomial", context=plan_digest),
                derive(root, label="mask-polynomial", context=plan_digest),
            ),
        )


def mask_pair(mask_seed: bytes, *, plan_digest: bytes, pair_secrets: PairSecrets) -> HybridPair:
    """Rebuild the pair of a partner's pairwise masks from its seed."""
    return HybridPair.from_seed(mask_seed, label="mask-key", context=plan_digest, pair_secrets=pair_secrets)
