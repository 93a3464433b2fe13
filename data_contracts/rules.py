"""The closed vocabulary of rules that a data contract may use.

Why: a rule is data (serializable, comparable, signable), never a lambda; the checks that carry them out live in
``checks.py`` and ``keys.py``. Runs: anywhere. Source: own; vocabulary after ODCS v3.1 and pandera.

Every rule but ``Required`` and ``RequiredWhen`` passes over nulls: whether a null is allowed is said once, there.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from typing_extensions import override

INTEGER_TYPES = frozenset({"int8", "int16", "int32", "int64"})
NUMBER_TYPES = INTEGER_TYPES | {"float64"}
KEY_TYPES = INTEGER_TYPES | {"string"}
ALL_TYPES = NUMBER_TYPES | {"string", "bool", "list<uint16>"}


@dataclass(frozen=True)
class Rule:
    """Base of every rule.

    Attributes:
        kind: Name of the rule in JSON, in reports and in the quarantine.
        applies_to: Field types that the rule can check.
    """

    kind: ClassVar[str] = ""
    applies_to: ClassVar[frozenset[str]] = ALL_TYPES

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the rule judges, all of a type in ``applies_to``."""
        raise NotImplementedError

    @property
    def condition_column(self) -> str | None:
        """Column that only decides whether the rule applies to a row, if there is one."""
        return None

    @property
    def label(self) -> str:
        """Name of the judged columns in reports, such as ``value`` or ``structure_index+endpoint_index``."""
        return "+".join(self.columns)

    def to_json(self) -> dict[str, Any]:
        """Return the rule as a JSON object; tuples become lists."""
        parameters = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {"rule": self.kind, **parameters}


@dataclass(frozen=True)
class ColumnRule(Rule):
    """Base of the rules that judge one column."""

    column: str

    @property
    @override
    def columns(self) -> tuple[str, ...]:
        """The one judged column."""
        return (self.column,)


@dataclass(frozen=True)
class Required(ColumnRule):
    """No null. Every field that is not nullable has this rule without saying so."""

    kind: ClassVar[str] = "required"


@dataclass(frozen=True)
class OneOf(ColumnRule):
    """One of a few values, compared exactly."""

    values: tuple[str | int, ...]
    kind: ClassVar[str] = "one_of"
    applies_to: ClassVar[frozenset[str]] = KEY_TYPES


@dataclass(frozen=True)
class Between(ColumnRule):
    """Within a closed interval; an end of ``None`` is open to infinity. NaN is outside."""

    minimum: float | None
    maximum: float | None
    kind: ClassVar[str] = "between"
    applies_to: ClassVar[frozenset[str]] = NUMBER_TYPES


@dataclass(frozen=True)
class BetweenWhen(ColumnRule):
    """Within a closed interval in rows where the string column ``when`` is one of ``among``."""

    minimum: float | None
    maximum: float | None
    when: str
    among: tuple[str, ...]
    kind: ClassVar[str] = "between_when"
    applies_to: ClassVar[frozenset[str]] = NUMBER_TYPES

    @property
    @override
    def condition_column(self) -> str | None:
        """The string column that decides."""
        return self.when


@dataclass(frozen=True)
class Finite(ColumnRule):
    """Neither NaN nor infinite."""

    kind: ClassVar[str] = "finite"
    applies_to: ClassVar[frozenset[str]] = frozenset({"float64"})


@dataclass(frozen=True)
class Matches(ColumnRule):
    """The whole text matches an RE2 pattern (linear time, so no pattern can be made to hang)."""

    pattern: str
    kind: ClassVar[str] = "matches"
    applies_to: ClassVar[frozenset[str]] = frozenset({"string"})


@dataclass(frozen=True)
class LengthBetween(ColumnRule):
    """Text length in Unicode characters, both ends included."""

    minimum: int
    maximum: int
    kind: ClassVar[str] = "length_between"
    applies_to: ClassVar[frozenset[str]] = frozenset({"string"})


@dataclass(frozen=True)
class NoControlCharacters(ColumnRule):
    """No character below U+0020 and no U+007F: a line break in an identifier means a torn file."""

    kind: ClassVar[str] = "no_control_characters"
    applies_to: ClassVar[frozenset[str]] = frozenset({"string"})


@dataclass(frozen=True)
class RequiredWhen(ColumnRule):
    """No null in rows where the bool column ``flag`` has the given state."""

    flag: str
    state: bool
    kind: ClassVar[str] = "required_when"

    @property
    @override
    def condition_column(self) -> str | None:
        """The bool column that decides."""
        return self.flag


@dataclass(frozen=True)
class SortedUniqueBelow(ColumnRule):
    """Each list is strictly increasing, without null, every element below ``bound``."""

    bound: int
    kind: ClassVar[str] = "sorted_unique_below"
    applies_to: ClassVar[frozenset[str]] = frozenset({"list<uint16>"})


@dataclass(frozen=True)
class KnownIn(ColumnRule):
    """A foreign key: the value occurs in column ``key`` of another contract's accepted rows."""

    contract: str
    key: str
    kind: ClassVar[str] = "known_in"
    applies_to: ClassVar[frozenset[str]] = KEY_TYPES


@dataclass(frozen=True)
class RowNumber(ColumnRule):
    """Counts the rows of the table: 0, 1, 2, ..."""

    kind: ClassVar[str] = "row_number"
    applies_to: ClassVar[frozenset[str]] = INTEGER_TYPES


@dataclass(frozen=True)
class ColumnsRule(Rule):
    """Base of the rules that judge several columns together."""

    together: tuple[str, ...]

    @property
    @override
    def columns(self) -> tuple[str, ...]:
        """The columns judged together."""
        return self.together


@dataclass(frozen=True)
class Unique(ColumnsRule):
    """No two rows agree in all columns; every repetition after the first row breaks the rule."""

    kind: ClassVar[str] = "unique"
    applies_to: ClassVar[frozenset[str]] = KEY_TYPES


@dataclass(frozen=True)
class StrictlyIncreasing(ColumnsRule):
    """Rows are strictly increasing in one or two int32 columns, compared in the order given."""

    kind: ClassVar[str] = "strictly_increasing"
    applies_to: ClassVar[frozenset[str]] = frozenset({"int8", "int16", "int32"})
