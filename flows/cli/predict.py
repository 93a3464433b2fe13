"""``motet predict``: probabilities of a registered model, in about a second.

Why: a chemist asks for a molecule or a file of them; no code that came with a model is run. Runs: anywhere.
Source: own.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_contracts.errors import SettingsError
from flows.cli.tables import cell
from tasks.model_registration.prediction import load_model

STANDARD_INPUT = Path("-")
ROWS_SHOWN = 40


def predict(arguments: argparse.Namespace) -> dict[str, Any]:
    """Predict, print a table, or write it to a file.

    Raises:
        SettingsError: If there is nothing to predict, or the file cannot be read as text.
    """
    smiles = [*arguments.smiles, *(_lines(arguments.input) if arguments.input else [])]
    if not smiles:
        raise SettingsError(
            "there is no structure to predict",
            advice="name SMILES on the command line (quoted), or --input FILE",
        )
    model = load_model(arguments.home, arguments.model)
    chosen: dict[str, Any] = (
        {} if arguments.significance is None else {"significance": arguments.significance}
    )
    if arguments.embeddings:
        chosen["embeddings"] = "instead"
    table = model.predict(smiles, endpoints=arguments.endpoint or (), **chosen)
    if model.card.data.synthetic:
        print(
            "Simulated assays on real molecules: these figures say nothing about any drug.", file=sys.stderr
        )
    if arguments.output:
        _write(arguments.output, table)
    else:
        _show(table)
    n_valid = sum(table["valid"])
    summary = {"model": model.label, "rows": len(table["smiles"]), "valid_rows": n_valid}
    if arguments.output:
        print(f"{summary['rows']} rows written to {arguments.output}", file=sys.stderr)
        return {**summary, "output": str(arguments.output)}
    return {**summary, "predictions": table}


def _lines(path: Path) -> list[str]:
    """One SMILES a line; text behind the first blank is a name and is ignored."""
    try:
        text = sys.stdin.read() if path == STANDARD_INPUT else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(
            f"--input '{path.name}' cannot be read as text ({type(exc).__name__})",
            advice="give a UTF-8 file with one SMILES per line, or - for standard input",
        ) from None
    return [line.split(maxsplit=1)[0] for line in text.splitlines() if line.strip()]


def _show(table: dict[str, list[Any]]) -> None:
    columns = list(table)
    rows = list(zip(*table.values(), strict=True))
    print("\t".join(columns))
    for row in rows[:ROWS_SHOWN]:
        print("\t".join(_text(value) for value in row))
    if len(rows) > ROWS_SHOWN:
        print(f"... and {len(rows) - ROWS_SHOWN} more rows; --output FILE keeps them all", file=sys.stderr)


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(f"{number:.4g}" for number in value[:8]) + (" ..." if len(value) > 8 else "")  # noqa: PLR2004
    return "yes" if value is True else "no" if value is False else cell(value)


def _write(path: Path, table: dict[str, list[Any]]) -> None:
    """Write Parquet, or CSV by the file's suffix."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    arrow = pa.table(table)
    if path.suffix == ".parquet":
        pq.write_table(arrow, path)
    elif path.suffix == ".csv":
        pa_csv.write_csv(arrow, path)
    else:
        raise SettingsError(f"--output '{path.name}' must end in .csv or .parquet")
