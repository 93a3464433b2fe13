"""The guard against differencing: sums over varying cohorts must not combine into a sum over few.

Why: the sum over {a, b, c, d} minus the sum over {a, b, c} is d's value, however well each was masked.
Runs: on the coordinator before a release, and on every partner before it contributes. Source: own;
So et al. 2021 (arXiv 2106.03328) for the attack.
"""

from collections.abc import Collection, Sequence
from itertools import combinations

from data_contracts.errors import AgreementViolation

_PRIME = 2**61 - 1  # ranks are computed modulo a prime: never above the rational rank


def check_release(cohort: Collection[str], *, released: Sequence[Collection[str]], min_cohort: int) -> None:
    """Check that a further exact sum over the same data isolates no group smaller than the minimum.

    All released sums together with the new one are linear equations; a cohort that is out already adds none. The check refuses if any combination of
    them, whatever its coefficients, involves fewer than ``min_cohort`` partners; the difference of two cohorts is
    the simplest such combination.

    Args:
        cohort: Whose values the new sum covers.
        released: Cohorts of the sums over the same data that are already out.
        min_cohort: Fewest partners that any released quantity may depend on.

    Raises:
        AgreementViolation: If the cohort is too small, or a combination would isolate fewer partners.
    """
    if len(set(cohort)) < min_cohort:
        raise AgreementViolation(
            f"a sum over {len(set(cohort))} partners is below the minimum cohort of {min_cohort}; nothing was released"
        )
    before = {frozenset(names) for names in released}
    if frozenset(cohort) in before:
        return  # the same equation again says nothing new
    sums = [*before, frozenset(cohort)]
    isolated = _isolated_group(sums, min_cohort)
    if isolated:
        raise AgreementViolation(
            f"with the {len(released)} sums already released, this one would isolate {len(isolated)} partners, fewer than "
            f"{min_cohort}; nothing was released",
            advice="keep the cohort that earlier sums over the same data had, or wait for new data",
        )


def _isolated_group(sums: Sequence[frozenset[str]], min_cohort: int) -> frozenset[str]:
    """Smallest group of fewer than ``min_cohort`` partners on which some combination of sums depends alone.

    Partners that always occurred together cannot be told apart, so they count as one class; a combination whose
    support lies within some classes exists exactly if leaving out these classes' columns lowers the rank.
    """
    classes: dict[tuple[bool, ...], set[str]] = {}
    for name in sorted(frozenset().union(*sums)):
        classes.setdefault(tuple(name in cohort for cohort in sums), set()).add(name)
    columns = list(classes)
    full = _rank(columns)
    small = [column for column in columns if len(classes[column]) < min_cohort]
    for count in range(1, min_cohort):
        for chosen in combinations(small, count):
            group = frozenset().union(*(classes[column] for column in chosen))
            if len(group) < min_cohort and _rank([c for c in columns if c not in chosen]) < full:
                return group
    return frozenset()


def _rank(columns: Sequence[Sequence[bool]]) -> int:
    """Rank of a 0/1 matrix given by its columns, by elimination modulo a prime."""
    basis: dict[int, list[int]] = {}
    for column in columns:
        vector = [int(entry) for entry in column]
        for pivot, row in basis.items():
            factor = vector[pivot]
            if factor:
                vector = [(v - factor * r) % _PRIME for v, r in zip(vector, row, strict=True)]
        pivot = next((i for i, entry in enumerate(vector) if entry), -1)
        if pivot >= 0:
            inverse = pow(vector[pivot], -1, _PRIME)
            basis[pivot] = [entry * inverse % _PRIME for entry in vector]
    return len(basis)
