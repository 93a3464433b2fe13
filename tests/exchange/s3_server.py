"""A real S3-compatible server on loopback, with conditional writes."""

import contextlib
import hashlib
import logging
import urllib.request

from moto.server import ThreadedMotoServer


@contextlib.contextmanager
def serving_s3():
    """Serve, and give the address."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def make_bucket(address, label):
    """Make a bucket that is named after a test."""
    name = f"motet-{hashlib.sha256(label.encode()).hexdigest()[:20]}"
    asked = urllib.request.Request(f"{address}/{name}", method="PUT")  # noqa: S310 - our own server on loopback
    urllib.request.urlopen(asked).close()  # noqa: S310
    return name
