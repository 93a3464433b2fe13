"""From one roster to the next: who joined, who left, whose keys are new, and whether all of it is signed.

Why: whoever could slip a key or a party into a roster would read sums; each change is tied to the roster before.
Runs: anywhere; the coordinator makes, everybody checks. Source: own; after the key chains of TUF's root metadata.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_contracts.errors import ProtocolError
from tasks.exchange.enrolment import SignedRoster, Statement
from tasks.exchange.identity import Roster


@dataclass(frozen=True)
class Changes:
    """What differs between two rosters; names, sorted.

    Attributes:
        joined: Not on the one before: a person compares the digest, for nobody else vouches for them.
        left: Gone, by their own signature.
        removed: Gone without it: by the coordinator's word and the acceptance of all who stay.
        rotated: With new keys, by their old ones.
    """

    joined: tuple[str, ...]
    left: tuple[str, ...]
    removed: tuple[str, ...]
    rotated: tuple[str, ...]


def changes_of(new: SignedRoster, *, old: SignedRoster) -> Changes:
    """Check that a roster follows another one, and say what it changes.

    Raises:
        ProtocolError: If it does not, naming the party and what is missing.
    """
    succession = new.succession
    if succession is None or succession.version <= old.version:
        raise ProtocolError(
            f"the roster is version {new.version}, and this site has pinned version {old.version}: it would go back",
            advice="ask the coordinator for the newest roster; an older one never counts again",
        )
    if (succession.version, succession.previous) != (old.version + 1, old.digest):
        raise ProtocolError(
            f"the roster is version {new.version} and does not follow the pinned version {old.version}",
            advice="accept the versions between them first, in their order",
        )
    before, after = _statements(old), _statements(new)
    _demand_same_coordinator(before, after)
    gone, kept = set(before) - set(after), set(before) & set(after)
    rotated = {name for name in kept if after[name] != before[name]}
    for name in sorted(rotated):
        _demand_rotation(name, new, old=before[name], digest=old.digest)
    joined = sorted(set(after) - set(before))
    if list(succession.joined) != joined:
        raise ProtocolError(
            f"the roster says that {', '.join(succession.joined) or 'nobody'} joined, and lists others"
        )
    _demand_strangers(joined, after, before)
    left = {departure.name for departure in succession.departures}
    for departure in succession.departures:
        key = before[departure.name].public_key if departure.name in gone else ""
        if departure.previous != old.digest or not departure.is_signed_with(key):
            raise ProtocolError(f"'{departure.name}' has not signed that it leaves")
    return Changes(
        joined=tuple(joined),
        left=tuple(sorted(left)),
        removed=tuple(sorted(gone - left)),
        rotated=tuple(sorted(rotated)),
    )


def with_retired_keys(roster: SignedRoster, *, earlier: Sequence[SignedRoster]) -> Roster:
    """Whose messages count under a roster, and which keys of earlier ones count no more."""
    newest = roster.roster
    retired: dict[str, tuple[str, ...]] = {}
    for name, key in newest.public_keys.items():
        held = {said.public_key for each in earlier if (said := each.statement(name)) is not None}
        retired[name] = tuple(sorted(held - {key}))
    return newest.model_copy(update={"retired_keys": {name: keys for name, keys in retired.items() if keys}})


def _statements(roster: SignedRoster) -> Mapping[str, Statement]:
    return {each.statement.name: each.statement for each in roster.enrolments}


def _demand_same_coordinator(before: Mapping[str, Statement], after: Mapping[str, Statement]) -> None:
    (old,) = (said.name for said in before.values() if said.role == "coordinator")
    (new,) = (said.name for said in after.values() if said.role == "coordinator")
    if old != new:
        raise ProtocolError(
            f"the roster is led by '{new}', the one before by '{old}': that is another consortium"
        )


def _demand_rotation(name: str, new: SignedRoster, *, old: Statement, digest: str) -> None:
    assert new.succession is not None  # noqa: S101 - checked before
    found = [each for each in new.succession.rotations if each.enrolment.statement.name == name]
    said = new.statement(name)
    assert said is not None  # noqa: S101 - it is on both rosters
    if said.role != old.role:
        raise ProtocolError(
            f"'{name}' was {old.role} and would be {said.role}: it must join under another name"
        )
    if len(found) != 1 or found[0].enrolment.statement != said or found[0].previous != digest:
        raise ProtocolError(
            f"the keys of '{name}' are new, and no rotation to them from this roster is there"
        )
    if not found[0].is_signed_with(old.public_key):
        raise ProtocolError(f"the rotation of '{name}' is not signed with the key that it replaces")


def _demand_strangers(
    joined: list[str], after: Mapping[str, Statement], before: Mapping[str, Statement]
) -> None:
    """Nobody comes back under another name with keys that belonged to somebody else before."""
    for what in ("public_key", "sealing_key", "certificate"):
        held = {getattr(said, what): said.name for said in before.values()}
        for name in joined:
            if (owner := held.get(getattr(after[name], what))) is not None:
                raise ProtocolError(f"'{name}' would join with the {what.replace('_', ' ')} of '{owner}'")
