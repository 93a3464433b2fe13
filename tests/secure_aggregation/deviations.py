"""What a deviating partner, coordinator or mailbox does to messages."""

from tasks.secure_aggregation import coordinator
from tests.secure_aggregation.consortium import Consortium


def resign(consortium: Consortium, message: bytes, *, signer: str, change) -> bytes:
    """Change a message's signed bytes and sign them anew: what a partner that deviates can do."""
    signed = bytearray(message[:-64])
    change(signed)
    return bytes(signed) + consortium.signing[signer].sign(bytes(signed))


def flip(data: bytes, at: int, bit: int = 0) -> bytes:
    out = bytearray(data)
    out[at] ^= 1 << bit
    return bytes(out)


def until_masked(c: Consortium, masked_by=None, sent=None):
    """Run honestly to the end of phase 3; returns the coordinator's state and all messages so far."""
    opened = coordinator.begin(c.plan, identities=c.identities)
    adverts = c.adverts()
    advertised = opened.adverts(adverts)
    shares = c.shares(adverts, c.names, sent)
    shared = advertised.shares(shares)
    masked = c.masked(shares, masked_by or c.names)
    return shared, adverts, shares, masked
