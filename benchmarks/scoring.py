"""What a chemist waits for: loading a model, and predicting 1,000 molecules on one core.

Why: a model that is slow to ask is not asked. Runs: by hand, `python benchmarks/scoring.py`.
CPU seconds of one thread. Source: own; molecules from RDKit's own data, weights drawn at random: only shapes matter.
"""

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path

import numpy as np

from tasks.local_training.parameters import initial_head, initial_trunk
from tasks.model_registration import scoring
from tasks.model_registration.bundle import DataOrigin, reliability_layout, write_bundle
from tasks.simulation.molecules import embedded_structures, rdkit_data_directory


def main() -> None:
    """Predict, and say where the time goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--hidden", type=int, default=400)
    arguments = parser.parse_args()
    smiles = embedded_structures(rdkit_data_directory())["smiles"].to_pylist()[: arguments.molecules]
    for n_endpoints in arguments.endpoints:
        with tempfile.TemporaryDirectory() as scratch:
            write_bundle(
                Path(scratch),
                run_id="benchmark",
                trunk=initial_trunk(arguments.hidden, seed=0),
                head=initial_head(n_endpoints, arguments.hidden, seed=1),
                endpoints=[f"E{number}" for number in range(n_endpoints)],
                data=DataOrigin(synthetic=True),
                validation=None,
                reliability={
                    name: np.ones(shape, dtype=np.float32)
                    for name, shape in reliability_layout(n_endpoints, n_bits=32_768)
                },
            )
            start = time.process_time()
            model = scoring.load(Path(scratch))
            loading = time.process_time() - start
        model.predictions(smiles[:2])
        profile = cProfile.Profile(time.process_time)
        start = time.process_time()
        table = model.predictions(smiles)
        seconds = time.process_time() - start
        profile.runcall(model.predictions, smiles)
        print(
            f"{len(smiles)} molecules x {n_endpoints} endpoints: {seconds:.2f} CPU s for {len(table['smiles'])} rows, "
            f"loaded in {loading:.2f} s"
        )
        times = pstats.Stats(profile).stats
        for (file, _, name), entry in sorted(times.items(), key=lambda item: -item[1][2])[:5]:
            print(f"    {entry[2]:.2f} s  {name} ({Path(file).name})")


if __name__ == "__main__":
    main()
