"""The wire between the parties and the mailbox: a relay that can cut, slow, garble, or swallow answers.

The mailbox speaks TLS end to end, so the relay sees ciphertext only, as any network does. Whose connection it is, it
learns from the kernel: the process that holds the other end.
"""

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

BLOCK = 65536


@dataclass
class Link:
    """What the relay does to one party's connections."""

    cut: bool = False
    pause_seconds: float = 0.0
    garble: int = 0  # blocks to flip a byte in
    swallow: int = 0  # answers to drop after the request has passed


@dataclass
class Relay:
    """Forwards connections from one address to another."""

    target: tuple[str, int]
    owners: object  # () -> {pid: party}
    seed: int = 0
    links: dict = field(default_factory=dict)
    port: int = 0

    def start(self, port: int) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.listening = socket.create_server(("127.0.0.1", port))
        self.port = port
        self.open: set[tuple[str | None, socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listening.close()
        for _, *ends in list(self.open):
            for end in ends:
                _shut(end)

    def link(self, party: str) -> Link:
        return self.links.setdefault(party, Link())

    def cut(self, party: str) -> None:
        """Cut a party off, also from what is open."""
        self.link(party).cut = True
        for owner, *ends in list(self.open):
            if owner == party:
                for end in ends:
                    _shut(end)

    def mend(self, party: str) -> None:
        self.links[party] = Link()

    def _accept(self) -> None:
        while True:
            try:
                near, address = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near, address[1]), daemon=True).start()

    def _serve(self, near: socket.socket, port: int) -> None:
        party = owner_of(port, self.owners())
        if party is not None and self.link(party).cut:
            return _shut(near)
        try:
            far = socket.create_connection(self.target, timeout=5)
        except OSError:
            return _shut(near)
        far.settimeout(None)
        entry = (party, near, far)
        self.open.add(entry)
        back = threading.Thread(target=self._pump, args=(far, near, party, True), daemon=True)
        back.start()
        self._pump(near, far, party, False)
        back.join()
        _shut(near)
        _shut(far)
        self.open.discard(entry)
        return None

    def _pump(self, source, sink, party, is_answer) -> None:
        with suppress(OSError):
            while block := source.recv(BLOCK):
                link = self.link(party) if party else Link()
                if link.pause_seconds:
                    time.sleep(link.pause_seconds * self.rng.random())
                if link.swallow and is_answer and len(block) > 64:
                    link.swallow -= 1
                    _shut(source)
                    _shut(sink)
                    return
                if link.garble and len(block) > 64:
                    link.garble -= 1
                    spoilt = bytearray(block)
                    spoilt[int(self.rng.integers(len(spoilt)))] ^= 1 << int(self.rng.integers(8))
                    block = bytes(spoilt)
                sink.sendall(block)
            sink.shutdown(socket.SHUT_WR)  # the other direction may still have something to say
            return
        _shut(source)
        _shut(sink)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        end.close()


def owner_of(port: int, owners: dict) -> str | None:
    """The party whose process connected from a port of loopback."""
    inode = None
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].rpartition(":")[2], 16) == port and words[9] != "0":
            inode = f"socket:[{words[9]}]"
            break
    for pid, party in owners.items():
        with suppress(OSError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if str(entry.readlink()) == inode:
                        return party
    return None
