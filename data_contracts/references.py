"""A reference to a blob: the only thing that passes between Prefect tasks.

Why: task parameters and results are stored in clear in Prefect's database, so data never travels there.
Runs: anywhere. Source: own; content addressing as in git and OCI.
"""

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Field(pattern=r"^[0-9a-f]{64}$")


class BlobReference(BaseModel):
    """Names one immutable blob of a content-addressed store.

    ``contract`` names what the blob holds, such as ``trunk@1`` (safetensors) or ``endpoints@1.0.0`` (Arrow).
    A reference to private data never leaves its site: its digest would confirm a guess.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Sha256
    bytes: int = Field(ge=0)
    contract: str = Field(pattern=r"^[a-z0-9_-]+@[0-9.]+$")
