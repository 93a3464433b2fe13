"""Does joining pay? Single against federated against pooled on a public table, seed by seed.

Why: the claim that matters, to be repeated by anybody with the table. Runs: by hand, minutes a seed,
`python benchmarks/uplift.py chembl_5thresh.csv.gz --seeds 1 2 3`; each run resumes. Source: own; RIPtoP as in MELLODDY's
evaluation.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

METRIC = "auprc"


def motet(*arguments: str) -> dict[str, Any]:
    """Run one command and return its last line's object."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--json"], stdout=subprocess.PIPE, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def rows_of(result: dict[str, Any]) -> list[list[str]]:
    """One row per partner: endpoints, the arms, uplift with its interval, RIPtoP."""
    rows = []
    for name, uplift in result["partners"].items():
        found = uplift["metrics"][METRIC]
        arms = [found["arms"].get(arm, {}).get("value") for arm in ("single", "federated", "pooled")]
        gain, riptop = found["uplift"], found["riptop"]
        rows.append(
            [
                name,
                str(uplift["n_endpoints"]),
                *("-" if value is None else f"{value:.3f}" for value in arms),
                f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]",
                f"{100 * riptop['value']:+.1f} %",
            ]
        )
    return rows


def main() -> None:
    """Run every seed and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--partners", default="4")
    parser.add_argument("--run", nargs=argparse.REMAINDER, default=["--hidden", "400"], help="for motet run")
    chosen = parser.parse_args()
    print("| seed | partner | endpoints | single | federated | pooled | uplift AUPRC | RIPtoP |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in chosen.seeds:
        started = time.monotonic()
        imported = motet(
            "import", "wide", str(chosen.table), "--partners", chosen.partners, "--seed", str(seed)
        )
        result = motet("run", "--data", imported["dataset"], "--seed", str(seed), *chosen.run)
        for row in rows_of(result):
            print(f"| {seed} | " + " | ".join(row) + " |")
        seconds = time.monotonic() - started
        sums = result["consortium"]["test"]
        riptop = 100 * sums[f"test/uplift/riptop_{METRIC}"]
        print(f"| {seed} | **all** | | | | | {seconds:.0f} s wall | **{riptop:+.1f} %** |", flush=True)


if __name__ == "__main__":
    main()
