"""What a server optimizer keeps between rounds, as a public blob beside the shared model.

Why: a round must be repeatable from its messages alone, so the state stands in the mailbox and the plan names it.
It is a function of sums that everybody may see. Runs: on the coordinator, and on whoever repeats a round. Source: own.
"""

import numpy as np
from safetensors.numpy import save

from data_contracts.errors import UpdateMismatch
from data_contracts.references import BlobReference
from tasks.aggregation.server_optimizers import ServerState
from tasks.exchange.blob_store import BlobStore
from tasks.local_training.parameters import read_parameters

CONTRACT = "server-state@1"


def publish_state(blobs: BlobStore, state: ServerState) -> BlobReference:
    """Store a state as safetensors."""
    arrays = {name: np.ascontiguousarray(array) for name, array in vars(state).items() if array is not None}
    return blobs.put([save(arrays)], contract=CONTRACT)


def read_state(blobs: BlobStore, reference: BlobReference, *, who: str) -> ServerState:
    """Read a published state after checking its digest.

    Raises:
        ProtocolError: If the blob is missing or not the one that the reference names.
        UpdateMismatch: If it holds no state.
    """
    blobs.open(reference, who=who)
    arrays = read_parameters(blobs.path(reference))
    if "velocity" not in arrays or not set(arrays) <= {"velocity", "square"}:
        raise UpdateMismatch(
            f"the {CONTRACT} of '{who}' holds {sorted(arrays)}, expected velocity and square"
        )
    return ServerState(velocity=arrays["velocity"], square=arrays.get("square"))
