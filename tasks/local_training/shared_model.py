"""What a consortium trains together: the trunk, and the catalogue head of endpoints that several partners measure.

Why: a partner's own head sees its own labels only; for an assay that many run, one row trained on all their labels
is worth more than the shared trunk (measured: docs/results.md). Runs: anywhere. Source: MELLODDY's catalogue
fusion (``T_cat``, Heyndrickx et al. 2023); the rows travel in the same masked update as the trunk.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_contracts.errors import UpdateMismatch
from tasks.local_training.parameters import (
    N_BITS,
    FloatArray,
    Layout,
    Parameters,
    check_layout,
    flatten,
    head_layout,
    initial_head,
    initial_trunk,
    layout_of,
    trunk_layout,
    unflatten,
    vector_length,
)

PREFIX = "catalogue."
PRIVATE = -1
"""Place of an endpoint whose head row never leaves its partner."""
HEAD_STREAM = (
    2**31
)  # keeps the catalogue head's draws apart from the trunk's, which use the public seed itself

Places = npt.NDArray[np.int32]


def shared_layout(hidden: int, *, n_catalogue: int, n_layers: int = 0, n_bits: int = N_BITS) -> Layout:
    """List the shared arrays in the order of the flat vector: the trunk's, then ``catalogue.weight`` and ``.bias``."""
    trunk = trunk_layout(hidden, n_layers=n_layers, n_bits=n_bits)
    return trunk + catalogue_layout(hidden, n_catalogue=n_catalogue)


def catalogue_layout(hidden: int, *, n_catalogue: int) -> Layout:
    """List the catalogue head's arrays; none if no endpoint is shared."""
    if not n_catalogue:
        return ()
    return tuple((PREFIX + name, shape) for name, shape in head_layout(n_catalogue, hidden))


def trunk_length(hidden: int, *, n_layers: int = 0, n_bits: int = N_BITS) -> int:
    """How many parameters of the flat vector belong to the trunk; the catalogue head follows."""
    return vector_length(trunk_layout(hidden, n_layers=n_layers, n_bits=n_bits))


def initial_shared(
    hidden: int, *, n_catalogue: int, seed: int, n_layers: int = 0, n_bits: int = N_BITS
) -> FloatArray:
    """Draw the first shared model from a public seed.

    Returns:
        A flat vector of ``shared_layout``; its trunk does not depend on the catalogue.
    """
    head = initial_head(n_catalogue, hidden, seed=seed + HEAD_STREAM) if n_catalogue else {}
    trunk = initial_trunk(hidden, seed=seed, n_layers=n_layers, n_bits=n_bits)
    arrays = trunk | {PREFIX + name: array for name, array in head.items()}
    layout = shared_layout(hidden, n_catalogue=n_catalogue, n_layers=n_layers, n_bits=n_bits)
    return flatten(arrays, layout)


def layout_of_shared(shared: Mapping[str, FloatArray]) -> Layout:
    """Recognise a shared model's layout from its arrays.

    Raises:
        UpdateMismatch: If they are no shared model.
    """
    trunk, catalogue = split_shared(shared)
    trunk_part = layout_of(trunk)
    if not catalogue:
        return trunk_part
    n_catalogue = len(catalogue.get("bias", ()))
    hidden = len(trunk["embedding.bias"])
    check_layout(catalogue, head_layout(n_catalogue, hidden))
    return trunk_part + catalogue_layout(hidden, n_catalogue=n_catalogue)


def split_shared(shared: Mapping[str, FloatArray]) -> tuple[Parameters, Parameters]:
    """Take a shared model apart; the results share its memory.

    Returns:
        The trunk, and the catalogue head (``weight (n_catalogue, H)``, ``bias (n_catalogue,)``; empty without one).
    """
    trunk = {name: array for name, array in shared.items() if not name.startswith(PREFIX)}
    catalogue = {
        name.removeprefix(PREFIX): array for name, array in shared.items() if name.startswith(PREFIX)
    }
    return trunk, catalogue


def with_catalogue(head: Parameters, catalogue: Parameters, places: Places | None) -> Parameters:
    """Put the catalogue head's rows into a partner's head.

    Args:
        head: The partner's head, ``n_endpoints`` rows.
        catalogue: The catalogue head; empty without one.
        places: Each endpoint's row in the catalogue head or ``PRIVATE``, shape ``(n_endpoints,)``; None if the
            partner shares nothing.

    Returns:
        A new head.

    Raises:
        UpdateMismatch: If the places do not fit head and catalogue.
    """
    if places is None or not catalogue:
        return head
    if len(places) != len(head["bias"]) or places.max(initial=PRIVATE) >= len(catalogue["bias"]):
        raise UpdateMismatch(
            f"{len(places)} places with rows up to {places.max(initial=PRIVATE)} do not fit a head of "
            f"{len(head['bias'])} endpoints and a catalogue of {len(catalogue['bias'])}; prepare the run again"
        )
    shared = places >= 0
    merged = {name: array.copy() for name, array in head.items()}
    for name, array in catalogue.items():
        merged[name][shared] = array[places[shared]]
    return merged


def write_catalogue(shared: Parameters, head: Parameters, places: Places | None) -> None:
    """Write a trained head's shared rows into the catalogue head of ``shared``; the other rows stay as they are."""
    _, catalogue = split_shared(shared)
    if places is not None and catalogue:
        trained = places >= 0
        for name, array in catalogue.items():
            array[places[trained]] = head[name][trained]


def read_shared(arrays: Mapping[str, FloatArray]) -> tuple[Parameters, FloatArray]:
    """Lay a shared model out as views into one flat vector.

    Raises:
        UpdateMismatch: If the arrays are no shared model.
    """
    layout = layout_of_shared(arrays)
    vector = flatten(arrays, layout)
    return unflatten(vector, layout), vector


def read_places(path: Path | None) -> Places | None:
    """Read the places of a partner's endpoints.

    Raises:
        UpdateMismatch: If the file is missing or damaged.
    """
    if path is None:
        return None
    try:
        places: Places = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UpdateMismatch(
            f"'{path.name}' is no readable list of places ({type(error).__name__}); run the same command again"
        ) from None
    if places.dtype != np.int32 or places.ndim != 1 or places.min(initial=PRIVATE) < PRIVATE:
        raise UpdateMismatch(f"'{path.name}' holds no places of endpoints; run the same command again")
    return places
