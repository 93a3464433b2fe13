"""Does joining pay? Every arm on a public table, over several splits into companies, every seed shown.

Why: the claim that matters, to be repeated by anybody with the table. Runs: by hand, minutes a seed; each run resumes,
`python benchmarks/uplift.py chembl_5thresh.csv.gz --seeds 1 2 3 4 5 --run --baselines logistic boosted`.
Source: own; RIPtoP as in MELLODDY's evaluation. Intervals are drawn over assays, and over seeds crossed with them.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evaluation.metrics import METRICS, PERFECT
from tasks.evaluation.uplift import CONFIDENCE, resampled_weights, riptop

ARMS = ("single", "federated", "pooled", "logistic", "boosted")
LEVELS = ("0.1", "0.2")
N_BOOTSTRAP = 4000
QUORUMS = (5, 10)
"""The product's, and MELLODDY's: with few labels an endpoint is perfect by chance, and RIPtoP divides by next to nothing."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Endpoints:
    """Counted (seed, company, endpoint) triples of some runs."""

    table: pa.Table

    def column(self, name: str) -> Vector:
        """One column."""
        found: Vector = self.table.column(name).to_numpy()
        return found

    def has(self, arm: str) -> bool:
        """Whether an arm was run."""
        return f"{arm}_auprc" in self.table.column_names

    def of(self, **wanted: object) -> "Endpoints":
        """The rows of one seed or company."""
        keep = np.ones(self.table.num_rows, dtype=bool)
        for name, value in wanted.items():
            keep &= np.array([found == value for found in self.table.column(name).to_pylist()])
        return Endpoints(self.table.filter(pa.array(keep)))

    def with_labels(self, fewest: int) -> "Endpoints":
        """The rows with so many actives and so many inactives in the test fold."""
        few = np.minimum(self.column("n_active"), self.column("n_inactive"))
        return Endpoints(self.table.filter(pa.array(few >= fewest)))

    def draws(self) -> Vector:
        """Resamples of assays, and of seeds if there are several."""
        groups = [np.array(self.table.column("assay").to_pylist())]
        if len(set(self.table.column("seed").to_pylist())) > 1:
            groups.append(self.column("seed"))
        return resampled_weights(groups, self.table.num_rows, np.random.default_rng(0), N_BOOTSTRAP)


def motet(home: Path, *arguments: str) -> dict[str, Any]:
    """Run one command and return its last line's object."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--home", str(home), "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def endpoints_of(directory: Path, *, seed: int) -> pa.Table:
    """The counted endpoints of one run, as its companies' own tables have them."""
    found = []
    for path in sorted(directory.glob("partners/*/results/endpoints.parquet")):
        table = pq.read_table(path)
        table = table.filter(table.column("counted"))
        table = table.append_column("seed", pa.array(np.full(table.num_rows, seed)))
        found.append(
            table.append_column("company", pa.array([path.parent.parent.name] * table.num_rows, pa.string()))
        )
    return pa.concat_tables(found, promote_options="permissive")


def interval(values: Vector, draws: Vector, *, percent: bool = False) -> str:
    """A mean with the bounds of its bootstrap interval."""
    low, high = np.quantile(draws @ values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    if percent:
        return f"{100 * values.mean():+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def gains(found: Endpoints, metric: str) -> tuple[Vector, Vector]:
    """Per endpoint the uplift, positive where it is better, and RIPtoP."""
    single, federated = found.column(f"single_{metric}"), found.column(f"federated_{metric}")
    sign = 1 if PERFECT[metric] else -1
    return sign * (federated - single), riptop(federated, single, perfect=PERFECT[metric])


def efficiency_gain(found: Endpoints, level: str) -> tuple[Vector, Vector]:
    """Conformal efficiency of both models per endpoint; their ratio of means is the gain."""
    return found.column(f"single_efficiency_{level}"), found.column(f"federated_efficiency_{level}")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def row_of(found: Endpoints, arms: Sequence[str]) -> list[str]:
    """Number of endpoints, the arms' AUPRC, both uplifts, RIPtoP and the gain in efficiency."""
    draws = found.draws()
    uplift, improved = gains(found, "auprc")
    single, federated = efficiency_gain(found, "0.2")
    return [
        str(found.table.num_rows),
        *(f"{found.column(f'{arm}_auprc').mean():.3f}" for arm in arms),
        interval(uplift, draws),
        interval(gains(found, "auroc")[0], draws),
        interval(improved, draws, percent=True),
        f"{100 * (federated.mean() / single.mean() - 1):+.1f} %",
    ]


def print_seeds(found: Endpoints, arms: Sequence[str]) -> None:
    """Every seed and company, and all seeds together."""
    rows = []
    for seed in sorted(set(found.table.column("seed").to_pylist())):
        of_seed = found.of(seed=seed)
        companies = sorted(set(of_seed.table.column("company").to_pylist()))
        rows += [[str(seed), name, *row_of(of_seed.of(company=name), arms)] for name in companies]
        rows.append([str(seed), "**all**", *row_of(of_seed, arms)])
    rows.append(["**all**", "**all**", *row_of(found, arms)])
    head = (
        "seed",
        "company",
        "endpoints",
        *arms,
        "uplift AUPRC",
        "uplift AUROC",
        "RIPtoP",
        "efficiency at 80 %",
    )
    print_table(head, rows)


def print_metrics(found: Endpoints, arms: Sequence[str]) -> None:
    """Every metric over all seeds, and every arm against the single company."""
    draws = found.draws()
    rows = []
    for metric in METRICS:
        uplift, improved = gains(found, metric)
        rows.append(
            [
                metric,
                *(f"{found.column(f'{arm}_{metric}').mean():.4f}" for arm in arms),
                interval(uplift, draws),
                interval(improved, draws, percent=True),
                f"{100 * np.mean(np.where(uplift == 0, 0.5, uplift > 0)):.0f} %",
            ]
        )
    print_table(("metric", *arms, "uplift", "RIPtoP", "endpoints improved"), rows)


def print_conformal(found: Endpoints) -> None:
    """Efficiency beside validity: a gain counts only where the promise is kept."""
    draws = found.draws()
    rows = []
    for level in LEVELS:
        single, federated = efficiency_gain(found, level)
        ratio = (draws @ federated) / (draws @ single) - 1
        low, high = np.quantile(ratio, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        kept = [
            f"{100 * found.column(f'{arm}_validity_{kind}_{level}').mean():.1f} %"
            for arm in ("single", "federated")
            for kind in ("active", "inactive")
        ]
        gain = 100 * (federated.mean() / single.mean() - 1)
        shares = (f"{100 * values.mean():.1f} %" for values in (single, federated))
        rows.append(
            [
                f"{100 * (1 - float(level)):.0f} %",
                *kept,
                *shares,
                f"{gain:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}]",
            ]
        )
    head = ("promised", "single: actives", "inactives", "federated: actives", "inactives")
    print_table((*head, "efficiency single", "federated", "gain"), rows)


def tables_of(chosen: argparse.Namespace) -> Mapping[int, pa.Table]:
    """Run every seed, or find it finished."""
    found = {}
    for seed in chosen.seeds:
        started = time.monotonic()
        wide = ("import", "wide", str(chosen.table), "--scenario", chosen.scenario)
        data = motet(chosen.home, *wide, "--partners", chosen.partners, "--seed", str(seed))["dataset"]
        result = motet(chosen.home, "run", "--data", data, "--seed", str(seed), *chosen.run)
        found[seed] = endpoints_of(Path(result["directory"]), seed=seed)
        print(f"seed {seed}: {time.monotonic() - started:.0f} s wall", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Run every seed and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--partners", default="4")
    parser.add_argument("--scenario", default="shared-assays")
    parser.add_argument("--home", type=Path, default=Path("motet-home"))
    parser.add_argument(
        "--run", nargs=argparse.REMAINDER, default=[], help="options of motet run (default: its own)"
    )
    chosen = parser.parse_args()
    found = Endpoints(pa.concat_tables(tables_of(chosen).values(), promote_options="permissive"))
    arms = [arm for arm in ARMS if found.has(arm)]
    print_seeds(found, arms)
    for fewest in QUORUMS:
        quorate = found.with_labels(fewest)
        print(f"Test folds with {fewest} of each class: {quorate.table.num_rows} (seed, company, endpoint)\n")
        print_metrics(quorate, arms)
        print_conformal(quorate)


if __name__ == "__main__":
    main()
