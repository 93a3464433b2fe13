"""Object storage as a site's mailbox, where the extra that it needs is installed.

Why: a consortium with a mailbox of its own needs no client of object storage. Runs: on every site. Source: own.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.errors import SettingsError
from tasks.exchange.mailbox import Mailbox
from tasks.exchange.run_seal import RunSeal

if TYPE_CHECKING:
    from tasks.exchange.object_mailbox import Bucket

CREDENTIALS = "s3.json"


def bucket_of(url: str, *, keys: Path, outage_seconds: float) -> "Bucket":
    """Open the bucket that a site names.

    Args:
        url: ``s3://bucket/prefix``.
        keys: Directory of the site's keys; ``s3.json`` in it, or the environment, holds endpoint and credentials.
        outage_seconds: How long it may be out of reach.

    Raises:
        SettingsError: If this installation has no client for it, or the credentials cannot be used.
    """
    try:
        from tasks.exchange.object_mailbox import open_bucket
    except ModuleNotFoundError:
        raise SettingsError(
            f"the mailbox of this site is {url}, and `obstore` is not installed", advice="install motet[s3]"
        ) from None
    return open_bucket(url, credentials=keys / CREDENTIALS, outage_seconds=outage_seconds)


def mailbox_in(bucket: "Bucket", *, copies: Path, seal: Callable[[], RunSeal] | None) -> Mailbox:
    """The mailbox in an opened bucket."""
    from tasks.exchange.object_mailbox import ObjectMailbox

    return ObjectMailbox(bucket, copies=copies, seal=seal)
