"""Plain tables for a terminal.

Why: a terminal, a log and a paste into a mail show the same. Runs: anywhere. Source: own.
"""

from collections.abc import Sequence


def cell(value: object) -> str:
    """Show one value: signed floats with three decimals, nothing for None."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns, numbers to the right."""
    texts = [[cell(value) for value in row] for row in rows]
    widths = [max(len(column), *(len(row[i]) for row in texts)) for i, column in enumerate(columns)]
    numeric = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(columns))]
    for line in [list(columns), *texts]:
        cells = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        )
        print("  ".join(cells).rstrip())
