"""What lies in a mailbox, as bytes that can be searched."""

import base64
import json


def readable(path):
    """A file's bytes; of a message also the body that it holds, which base64 would hide from a search."""
    data = path.read_bytes()
    if path.suffix == ".json" and b'"inline":"' in data:
        data += base64.b64decode(json.loads(data)["inline"])
    return data


def body_of(path, blobs):
    """The body of a message, in its envelope or apart."""
    envelope = json.loads(path.read_bytes())
    if "inline" in envelope:
        return base64.b64decode(envelope["inline"])
    return (blobs / envelope["head"]["body"]["sha256"]).read_bytes()
