"""An Arrow data contract: columns, types and rules of one kind of table, as frozen data.

Why: what a table must be is declared once, digested, and carried by every artefact in its Arrow metadata.
Runs: anywhere. Source: own; docs/decisions and ODCS v3.1 for the vocabulary.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from data_contracts.canonical_json import canonical_bytes, digest_of
from data_contracts.rules import KEY_TYPES, Required, Rule, StrictlyIncreasing, Unique

CONTRACT_KEY = b"motet.contract"
DIGEST_KEY = b"motet.contract.digest"
FIELD_TYPES: Mapping[str, Any] = {
    "string": pa.string(),
    "float64": pa.float64(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "list<uint16>": pa.list_(pa.uint16()),
}
MAX_ORDERED_COLUMNS = 2  # two int32 fit the one int64 that order is judged by


@dataclass(frozen=True)
class Field:
    """One column.

    Attributes:
        name: Column name, lower case with underscores.
        type: A key of ``FIELD_TYPES``.
        nullable: Whether nulls are allowed.
        optional: Whether the column may be absent, which means all null; needs ``nullable``.
        unit: Physical unit of the numbers, if they have one.
        description: One sentence for people.
    """

    name: str
    type: str
    nullable: bool = False
    optional: bool = False
    unit: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse a declaration that cannot be meant."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError("a column name is lower case with digits and underscores")
        if self.type not in FIELD_TYPES:
            raise ValueError(f"column {self.name}: type {self.type} is not one of {', '.join(FIELD_TYPES)}")
        if self.optional and not self.nullable:
            raise ValueError(f"column {self.name}: an optional column must be nullable")

    @property
    def arrow_type(self) -> Any:
        """The ``pa.DataType`` of the column."""
        return FIELD_TYPES[self.type]


@dataclass(frozen=True)
class Contract:
    """A versioned table contract.

    Attributes:
        name: Such as ``activities``.
        version: ``major.minor.patch``; the class of a change decides which one moves (compatibility.py).
        fields: Columns in the order of the artefact.
        rules: Rules beside those that ``nullable`` and ``key`` imply.
        key: Columns that identify a row; implies a ``unique`` rule.
        description: One sentence for people.
    """

    name: str
    version: str
    fields: tuple[Field, ...]
    rules: tuple[Rule, ...] = ()
    key: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse a declaration that contradicts itself."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError("a contract name is lower case with digits and underscores")
        if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", self.version):
            raise ValueError(f"contract {self.name}: version must be major.minor.patch")
        types = {field.name: field.type for field in self.fields}
        if not types or len(types) != len(self.fields):
            raise ValueError(f"contract {self.name}: columns must exist and have different names")
        if not all(types.get(column) in KEY_TYPES for column in self.key):
            raise ValueError(f"contract {self.name}: a key column must be a declared string or integer")
        for rule in self.rules:
            _check_rule(rule, types=types, contract=self.name)
        identities = [(rule.kind, rule.columns, rule.condition_column) for rule in self.all_rules]
        if len(set(identities)) != len(identities):
            raise ValueError(f"contract {self.name}: a rule is declared twice for the same columns")

    @property
    def identifier(self) -> str:
        """``name@version``, as it stands in metadata and references."""
        return f"{self.name}@{self.version}"

    @cached_property
    def all_rules(self) -> tuple[Rule, ...]:
        """The implied rules (not null, unique key), then the declared ones; the order of every report."""
        required = tuple(Required(field.name) for field in self.fields if not field.nullable)
        unique = (Unique(self.key),) if self.key else ()
        return (*required, *unique, *self.rules)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal: ``sha256sum`` of the lock file gives the same."""
        return digest_of(self.to_json())

    @cached_property
    def schema(self) -> Any:
        """``pa.Schema`` in contract order, with name, version and digest in its metadata."""
        metadata = {CONTRACT_KEY: self.identifier.encode(), DIGEST_KEY: self.digest.encode()}
        fields = [pa.field(field.name, field.arrow_type, nullable=field.nullable) for field in self.fields]
        return pa.schema(fields, metadata=metadata)

    def field(self, name: str) -> Field:
        """Return a column's declaration.

        Raises:
            KeyError: If the contract has no such column.
        """
        return {field.name: field for field in self.fields}[name]

    def to_json(self) -> dict[str, Any]:
        """Return the whole contract as a JSON object: what is digested, locked and compared."""
        return {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "fields": [asdict(field) for field in self.fields],
            "key": list(self.key),
            "rules": [rule.to_json() for rule in self.rules],
        }

    def to_bytes(self) -> bytes:
        """Return the canonical JSON: the content of the lock file."""
        return canonical_bytes(self.to_json())


def _check_rule(rule: Rule, *, types: Mapping[str, str], contract: str) -> None:
    """Raise ``ValueError`` if a rule names a column that is absent or of a type it cannot judge."""
    for column in rule.columns:
        if types.get(column) not in rule.applies_to:
            raise ValueError(f"contract {contract}: rule {rule.kind} cannot judge column {column}")
    needed = {"between_when": "string", "required_when": "bool"}.get(rule.kind)
    if rule.condition_column is not None and types.get(rule.condition_column) != needed:
        raise ValueError(f"contract {contract}: rule {rule.kind} needs a {needed} column as its condition")
    if isinstance(rule, StrictlyIncreasing) and not 1 <= len(rule.together) <= MAX_ORDERED_COLUMNS:
        raise ValueError(f"contract {contract}: strictly_increasing takes one or two columns")
