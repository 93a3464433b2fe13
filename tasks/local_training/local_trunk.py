"""A partner's own trunk beside the shared one: two networks side by side are one wider network.

Why: what a partner's chemistry needs beyond the common features stays with it, and whoever scores or loads the result
need not know. Runs: on the partner. Source: MELLODDY's local adaptation (a local trunk beside the frozen federated one);
the block form is own, proved in tests/local_training/test_local_trunk.py.
"""

from collections.abc import Mapping

import numpy as np

from tasks.local_training.parameters import FloatArray, Parameters


def beside_each_other(left: Mapping[str, FloatArray], right: Mapping[str, FloatArray]) -> Parameters:
    """Join two trunks over the same bits; the features of the first stand in front.

    Args:
        left: Any trunk, H features.
        right: A trunk without residual layers, L features.

    Returns:
        One trunk of H + L features. Residual layers of the first act on its own features alone.
    """
    width = len(right["embedding.bias"])
    joined = {
        "embedding.weight": np.hstack([left["embedding.weight"], right["embedding.weight"]]),
        "embedding.bias": np.append(left["embedding.bias"], right["embedding.bias"]),
    }
    for name, array in left.items():
        if name.startswith("layers."):
            joined[name] = np.pad(array, [(0, width)] * array.ndim)
    return joined


def widened_head(head: Mapping[str, FloatArray], *, width: int) -> Parameters:
    """Let a head look at further features, which count nothing yet.

    Returns:
        The head with ``weight`` of shape ``(n_endpoints, H + width)``.
    """
    weight = np.pad(head["weight"], ((0, 0), (0, width)))
    return {**head, "weight": weight}
