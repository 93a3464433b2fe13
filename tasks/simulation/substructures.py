"""What the simulated assays depend on: substructure bits and physical properties of molecules.

Why: a simulated activity must follow from chemistry that a hashed fingerprint can show, but not be the model's own
input: radius and size differ from it. Runs: anywhere. Source: Rogers and Hahn 2010 (ECFP4), as in rdkit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit import DataStructs
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors

RADIUS = 2
N_BITS = 2048
N_PROPERTIES = 5


def substructure_bits(molecules: Sequence[Any]) -> npt.NDArray[np.uint8]:
    """Binary ECFP4 of each molecule, shape ``(n_molecules, 2048)``, values 0 and 1."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=N_BITS)
    packed = [DataStructs.BitVectToBinaryText(bits) for bits in generator.GetFingerprints(list(molecules))]
    rows = np.frombuffer(b"".join(packed), dtype=np.uint8).reshape(len(packed), N_BITS // 8)
    return np.unpackbits(rows, axis=1, bitorder="little")


def physical_properties(molecules: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Size, rings, hydrogen-bond donors and acceptors, share of sp3 carbon: shape ``(n_molecules, 5)``."""
    return np.array(
        [
            (
                mol.GetNumHeavyAtoms(),
                rdMolDescriptors.CalcNumRings(mol),
                rdMolDescriptors.CalcNumHBD(mol),
                rdMolDescriptors.CalcNumHBA(mol),
                rdMolDescriptors.CalcFractionCSP3(mol),
            )
            for mol in molecules
        ],
        dtype=np.float64,
    ).reshape(len(molecules), N_PROPERTIES)
