"""MELLODDY's folds: one scaffold out of a molecule's scaffold network, and its keyed hash.

Why: a partner that split its data for MELLODDY must get the same folds again. Acyclic molecules all fall into one
fold, as published; the default rule in ``folds.py`` spreads them. Runs: on the partner. Source: MELLODDY-TUNER 3
(``scaffold_folding``, read in its code); scaffold tree rules after Schuffenhauer et al. 2007.
"""

import hashlib
import hmac
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold, rdScaffoldNetwork

TARGET_RINGS = 3
MACROCYCLE_ATOMS = 9  # more than that
USUAL_RING_ATOMS = (5, 6)
ACYCLIC = "None"
WORD_BYTES = 4
WORD_BITS = 32


def _network_parameters() -> Any:
    parameters: Any = rdScaffoldNetwork.ScaffoldNetworkParams()
    parameters.flattenIsotopes = True
    parameters.includeGenericBondScaffolds = False
    parameters.includeGenericScaffolds = False
    parameters.includeScaffoldsWithAttachments = False
    parameters.includeScaffoldsWithoutAttachments = True
    parameters.pruneBeforeFragmenting = True
    return parameters


_NETWORK = _network_parameters()
_scaffold_of: Any = MurckoScaffold.GetScaffoldForMol


def network_scaffold(mol: Any) -> str:
    """Choose the scaffold that decides about a molecule's fold.

    Args:
        mol: The parent (``rdkit.Chem.Mol``).

    Returns:
        SMILES of the Murcko scaffold if it has at most three rings, else of the best node of its scaffold network;
        ``"None"`` for an acyclic molecule.
    """
    with rdBase.BlockLogs():
        murcko = Chem.MolToSmiles(_scaffold_of(mol))
        if not murcko:
            return ACYCLIC
        scaffold = Chem.MolFromSmiles(murcko)
        if rdMolDescriptors.CalcNumRings(scaffold) <= TARGET_RINGS:
            return str(murcko)
        network = rdScaffoldNetwork.CreateScaffoldNetwork([scaffold], _NETWORK)
        return min((_rank(str(node)), str(node)) for node in network.nodes)[1]


def _rank(smiles: str) -> tuple[int, ...]:
    """Rank a node; the smallest is taken, ties by SMILES."""
    node = Chem.MolFromSmiles(smiles)
    sizes = [len(ring) for ring in node.GetRingInfo().AtomRings()]
    return (
        abs(rdMolDescriptors.CalcNumRings(node) - TARGET_RINGS),
        -int(any(size > MACROCYCLE_ATOMS for size in sizes)),
        rdMolDescriptors.CalcNumRotatableBonds(node, strict=False),
        -rdMolDescriptors.CalcNumBridgeheadAtoms(node),
        -rdMolDescriptors.CalcNumSpiroAtoms(node),
        -int(any(size not in USUAL_RING_ATOMS for size in sizes)),
        -rdMolDescriptors.CalcNumHeterocycles(node),
        rdMolDescriptors.CalcNumAromaticRings(node),
    )


def published_fold(scaffold: str, *, key: bytes, n_folds: int = 5) -> int:
    """Hash a scaffold to a fold, as ``random.Random(HMAC-SHA256(key, scaffold)).randint(0, n_folds - 1)`` does.

    Python's ``random`` seeds a Mersenne Twister with the bytes and their SHA-512, and draws until a number of as
    many bits as ``n_folds`` has is below it; both are spelled out here, so that no other Python changes a fold.

    Args:
        scaffold: As ``network_scaffold`` gives it.
        key: The consortium's key.
        n_folds: Number of folds.
    """
    seed = hmac.digest(key, scaffold.encode("ascii"), "sha256")
    number = int.from_bytes(seed + hashlib.sha512(seed).digest(), "big")
    n_words = max(1, -(-number.bit_length() // WORD_BITS))
    words = np.frombuffer(number.to_bytes(n_words * WORD_BYTES, "little"), dtype="<u4")
    twister = np.random.MT19937()
    twister._legacy_seeding(words)  # noqa: SLF001 - init_by_array of Matsumoto and Nishimura, nothing else has it
    shift = WORD_BITS - n_folds.bit_length()
    while True:
        drawn = int(twister.random_raw()) >> shift
        if drawn < n_folds:
            return drawn
