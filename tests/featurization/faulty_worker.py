"""A worker that speaks the real protocol and has real chemistry, but aborts over ethane and hangs over propane.

No structure is known that kills RDKit within the limits of the contract, so the fault is put in by hand.
"""

import os
import signal
import sys

from tasks.featurization.worker import Featurizer, Options, run

featurize = Featurizer(Options())
FATAL, ENDLESS, NONSENSE = "CC", "CCC", "CCCC"


def faulty(smiles):
    if FATAL in smiles:
        os.abort()
    if ENDLESS in smiles:
        signal.pause()
    answer = featurize(smiles)
    return answer.slice(1) if NONSENSE in smiles else answer


if __name__ == "__main__":
    sys.exit(run(faulty))
