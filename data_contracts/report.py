"""What a validation found: one object, two renderings.

Why: the partner needs to find its bad rows; the consortium may only learn that a table is in order and roughly
how large it is. Values are in neither. Runs: on the partner. Source: own; suppression of counts below ten as in
official statistics.
"""

from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import override

SMALLEST_PUBLISHED_COUNT = 10
SUPPRESSED = f"<{SMALLEST_PUBLISHED_COUNT}"
EXAMPLE_ROWS = 20


@dataclass(frozen=True)
class Finding:
    """Rows that break one rule.

    Attributes:
        rule: Kind of the rule, or ``type`` for text that is no number.
        column: Judged column or columns, joined by ``+``.
        count: Rows that break it.
        rows: Ordinals of the first of them (at most 20); row 0 is the first data row of the source.
    """

    rule: str
    column: str
    count: int
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class ValidationReport:
    """Outcome of one pass over one table; ``rows_accepted + rows_quarantined == rows_read``.

    Attributes:
        source: Base name of the file or name of the table.
        contract: ``name@version``.
        digest: Digest of the contract.
        verdict: ``refused`` if more rows are bad than allowed; then nothing of the table may be used.
        rows_read: Rows looked at.
        rows_accepted: Rows that keep every rule.
        rows_quarantined: Rows that break at least one.
        findings: One for every rule of the contract, in its order, also where the count is 0.
        unchecked: Foreign keys that could not be checked, because their table was not given.
        quarantine: Base name of the quarantine file, if one was asked for.
    """

    source: str
    contract: str
    digest: str
    verdict: Literal["accepted", "refused"]
    rows_read: int
    rows_accepted: int
    rows_quarantined: int
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...] = ()
    quarantine: str | None = None

    def for_partner(self) -> dict[str, Any]:
        """Render for the owner of the data, as JSON: exact counts and row ordinals, values withheld."""
        return {
            "source": self.source,
            "contract": self.contract,
            "digest": self.digest,
            "verdict": self.verdict,
            "rows": {
                "read": self.rows_read,
                "accepted": self.rows_accepted,
                "quarantined": self.rows_quarantined,
            },
            "findings": [
                {
                    "rule": f.rule,
                    "column": f.column,
                    "count": f.count,
                    "rows": list(f.rows),
                    "value": "withheld",
                }
                for f in self.findings
                if f.count
            ],
            "unchecked": list(self.unchecked),
            "quarantine": self.quarantine,
        }

    def for_consortium(self) -> dict[str, Any]:
        """Render for everyone else, as JSON: counts to two significant digits, below ten suppressed, no ordinals.

        The number of accepted rows is left out, because its difference from the rows read would undo the
        suppression; every rule is listed, so that a rule's presence tells nothing; the file's name stays home.
        """
        return {
            "contract": self.contract,
            "digest": self.digest,
            "verdict": self.verdict,
            "rows": {"read": published(self.rows_read), "quarantined": published(self.rows_quarantined)},
            "findings": [
                {"rule": f.rule, "column": f.column, "count": published(f.count)} for f in self.findings
            ],
            "unchecked": list(self.unchecked),
        }

    @override
    def __str__(self) -> str:
        """Return one line that may stand in any log: no file name, no ordinal, rounded counts."""
        read, bad = published(self.rows_read), published(self.rows_quarantined)
        return f"{self.contract} {self.verdict}: {read} rows read, {bad} quarantined"


def published(count: int) -> int | str:
    """Round a count to two significant digits; below ten it is suppressed."""
    if count < SMALLEST_PUBLISHED_COUNT:
        return SUPPRESSED
    unit: int = 10 ** (len(str(count)) - 2)
    return (count + unit // 2) // unit * unit
