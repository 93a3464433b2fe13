"""One million molecules, prepared from files to tables: time, memory, the second run, and a run that is killed.

Why: a partner's collection has millions of structures, and its machine may stop at any moment. Runs: anywhere, on
molecules enumerated from real ones. Source: own; goals: at most 2.5 GB, a second run within 5 % of the first, and a
killed run goes on where it was.

Run: ``python benchmarks/million_molecules.py [molecules] [workers]``; each step is a process of its own.
"""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rdkit import Chem, RDConfig, rdBase

from tasks.featurization.preparation import PartnerFiles, prepare_dataset

WEHI = Path(RDConfig.RDDataDir) / "Pains/test_data/wehi_mols.csv"
SUBSTITUENTS = (
    "C", "CC", "CCC", "C(C)C", "F", "Cl", "Br", "O", "OC", "OCC", "N", "NC", "N(C)C", "C#N", "C(F)(F)F", "C(=O)O",
    "C(=O)N", "C(=O)C", "S(=O)(=O)C", "S(=O)(=O)N", "C1CC1", "N1CCOCC1", "N1CCCCC1", "c1ccccc1", "c1ccncc1",
    "OC(F)(F)F", "SC", "NC(C)=O", "C(=O)OC", "CO", "CCO", "C1CCCC1",
)  # fmt: skip
SECRET = bytes(range(32))
ASSAYS, ACTIVITIES_PER_MOLECULE = 20, 3


def enumerated(count: int) -> Iterator[str]:
    """Yield different molecules: real ones with one of their aromatic hydrogens replaced by a substituent."""
    produced = 0
    with WEHI.open(encoding="utf-8") as file:
        cores = [row[0] for row in csv.reader(file)]
    for core in cores:
        with rdBase.BlockLogs():
            mol = Chem.MolFromSmiles(core)
        ranks = list(Chem.CanonicalRankAtoms(mol, breakTies=False))
        open_atoms = {ranks[a.GetIdx()]: a for a in mol.GetAtoms() if a.GetIsAromatic() and a.GetTotalNumHs()}
        for atom in open_atoms.values():
            for substituent in SUBSTITUENTS:
                if produced == count:
                    return
                grown = Chem.RWMol(Chem.CombineMols(mol, Chem.MolFromSmiles(substituent)))
                grown.AddBond(atom.GetIdx(), mol.GetNumAtoms(), Chem.BondType.SINGLE)
                if atom.GetNumExplicitHs():
                    grown.GetAtomWithIdx(atom.GetIdx()).SetNumExplicitHs(0)
                produced += 1
                yield Chem.MolToSmiles(grown)
    raise SystemExit(f"only {produced} molecules can be enumerated")


def write_files(home: Path, *, count: int) -> None:
    """Write a partner's files."""
    rng = np.random.default_rng(0)
    names = pa.array([f"CMP-{number:07d}" for number in range(count)])
    structures = pa.table({"compound_id": names, "smiles": pa.array(list(enumerated(count)))})
    pq.write_table(structures, home / "structures.parquet", compression="zstd")
    assays = [f"ASSAY-{number:02d}" for number in range(ASSAYS)]
    table = pa.table({"assay_id": assays, "assay_type": ["OTHER"] * ASSAYS, "direction": ["high"] * ASSAYS})
    pq.write_table(table, home / "assays.parquet")
    rows = count * ACTIVITIES_PER_MOLECULE
    activities = pa.table(
        {
            "compound_id": names.take(pa.array(np.repeat(np.arange(count), ACTIVITIES_PER_MOLECULE))),
            "assay_id": pa.array(assays).take(pa.array(rng.integers(0, ASSAYS, rows))),
            "relation": pa.array(["="]).take(pa.array(np.zeros(rows, dtype=np.int64))),
            "value": np.round(rng.normal(6, 1, rows), 2),
            "unit": pa.array(["p"]).take(pa.array(np.zeros(rows, dtype=np.int64))),
        }
    )
    pq.write_table(activities, home / "activities.parquet", compression="zstd")


def prepare(home: Path, *, output: str, workers: int) -> None:
    """Prepare the files and print what it took as JSON."""
    files = PartnerFiles(*(home / f"{name}.parquet" for name in ("assays", "activities", "structures")))
    wall, done = time.perf_counter(), 0

    def progress(count: int, _total: int) -> None:
        nonlocal done
        done = done or count

    prepared = prepare_dataset(
        files, consortium_secret=SECRET, output=home / output, workers=workers, progress=progress
    )
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - wall,
                "cpu": sum(u.ru_utime + u.ru_stime for u in usage),
                "peak_mib": [u.ru_maxrss / 1024 for u in usage],
                "found_in_cache": done,
                "prepared": prepared.report["structures"]["prepared"],
            }
        )
    )


def step(home: Path, *arguments: str, kill_after: float | None = None) -> dict[str, object] | None:
    """Run one preparation in a process of its own; None if it was killed."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--prepare", str(home), *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        said, _ = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    found: dict[str, object] = json.loads(said.splitlines()[-1])
    return found


def main() -> None:
    """Print one line for each step."""
    if sys.argv[1:2] == ["--prepare"]:
        prepare(Path(sys.argv[2]), output=sys.argv[3], workers=int(sys.argv[4]))
        return
    count = int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000
    workers = sys.argv[2] if len(sys.argv) > 2 else "2"
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIRECTORY")) as place:
        home = Path(place)
        write_files(home, count=count)
        print(f"{count:,} molecules enumerated, {workers} workers", flush=True)
        killed = step(home, "prepared", workers, kill_after=max(10.0, count / 20_000))
        print("killed with SIGKILL" if killed is None else "finished before it could be killed", flush=True)
        print("resumed ", step(home, "prepared", workers), flush=True)
        print("again   ", step(home, "prepared", workers), flush=True)
        (
            home / "prepared" / "prepared.json"
        ).unlink()  # as if other activities had come: structures are cached
        print("cached  ", step(home, "prepared", workers), flush=True)


if __name__ == "__main__":
    main()
