"""How near the test structures lie to those that are trained on.

Why: a split that leaves near-copies of the test structures in training makes every model look good; a person should
see it before believing a figure. Runs: on the partner. Source: nearest-neighbour Tanimoto similarity between folds, as
in Simm et al. 2021 (splits for federated learning).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from data_contracts.catalogue import HASHED_BITS
from tasks.featurization.time_split import TEST_FOLD, VALIDATION_FOLD

MOST_TEST, MOST_TRAINING = (
    500,
    20_000,
)  # rows come in the order of their keyed names, so the first are a sample
TEST_ROWS_AT_ONCE = 50
BINS = 10
NEAR = 0.6


def nearest_similarities(test: Any, training: Any) -> npt.NDArray[np.float64]:
    """Tanimoto similarity of each test structure to its nearest training structure.

    Args:
        test: ``pa.ListArray`` of set bits, n_test of them.
        training: The same of the training structures.

    Returns:
        Between 0 and 1, shape ``(n_test,)``; 0 where there is nothing to train on.
    """
    bits = _matrix(training)
    sizes, columns = np.diff(bits.indptr), bits.T.tocsr()
    nearest = np.zeros(len(test))
    for start in range(0, len(test), TEST_ROWS_AT_ONCE):
        some = _matrix(test.slice(start, TEST_ROWS_AT_ONCE))
        common = (some @ columns).toarray()
        union = np.diff(some.indptr)[:, np.newaxis] + sizes - common
        similarity = np.divide(common, union, out=np.zeros(common.shape), where=union > 0)
        nearest[start : start + TEST_ROWS_AT_ONCE] = similarity.max(axis=1, initial=0.0)
    return nearest


def _matrix(lists: Any) -> Any:
    """Set bits as a sparse matrix of ones."""
    starts = lists.offsets.to_numpy().astype(np.int64)
    columns = lists.flatten().to_numpy().astype(np.int32)
    data = np.ones(len(columns), dtype=np.float32)
    return sparse.csr_matrix((data, columns, starts - starts[0]), shape=(len(lists), HASHED_BITS))


def leakage_report(fingerprints: Any) -> dict[str, Any]:
    """Summarize a sample of the test fold against a sample of the training folds.

    Args:
        fingerprints: ``pa.Table`` of the contract ``hashed_fingerprints``.

    Returns:
        JSON: sample sizes, the median, the share of test structures with a near neighbour, and a histogram.
    """
    fold = fingerprints.column("fold").to_numpy()
    bits = fingerprints.column("bits").combine_chunks()
    in_test = np.flatnonzero(fold == TEST_FOLD)[:MOST_TEST]
    in_training = np.flatnonzero((fold != TEST_FOLD) & (fold != VALIDATION_FOLD))[:MOST_TRAINING]
    nearest = nearest_similarities(bits.take(in_test), bits.take(in_training))
    histogram, _ = np.histogram(nearest, bins=BINS, range=(0, 1))
    return {
        "test": len(in_test),
        "training": len(in_training),
        "median": round(float(np.median(nearest)), 2) if len(nearest) else None,
        "near": int((nearest >= NEAR).sum()),
        "histogram": histogram.tolist(),
    }
