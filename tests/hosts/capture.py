"""What went over a cable: packets recorded by tcpdump, put together to the bytes of every TCP connection."""

import struct
import subprocess
from collections import defaultdict

HANDSHAKE, APPLICATION_DATA = 22, 23
RECORD_TYPES = (20, 21, HANDSHAKE, APPLICATION_DATA)  # RFC 8446, 5.1
MAX_RECORD_BYTES = 2**14 + 256
SYN = 2


class Recording:
    """tcpdump on a host's cable."""

    def __init__(self, path, *, inside):
        self.path = path
        self.process = subprocess.Popen(
            [
                *inside,
                *("tcpdump", "-i", "eth0", "-s", "0", "-B", "65536", "-U", "-Z", "root", "-w", str(path)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        first = self.process.stderr.readline()
        assert "listening on" in first or "listening on" in self.process.stderr.readline(), first

    def end(self):
        """Stop recording, and say what tcpdump counted."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=30)
        return said


def packets(path):
    """Ethernet frames of a capture file (libpcap's format, microseconds, this machine's byte order)."""
    data = path.read_bytes()
    assert data[:4] == b"\xd4\xc3\xb2\xa1"
    at = 24
    while at < len(data):
        kept, whole = struct.unpack_from("<II", data, at + 8)
        assert kept == whole, "a packet was cut short"
        yield data[at + 16 : at + 16 + kept]
        at += 16 + kept


def streams(path):
    """The bytes of each direction of each TCP connection, by its two ends, in order and once."""
    pieces, first = defaultdict(dict), {}
    for frame in packets(path):
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:  # IPv4, TCP
            continue
        start = 14 + 4 * (frame[14] & 15)
        end = 14 + int.from_bytes(frame[16:18], "big")
        source, target, number = struct.unpack_from(">HHI", frame, start)
        ends = (frame[26:30], source, frame[30:34], target)
        if frame[start + 13] & SYN:
            first.setdefault(ends, []).append(number + 1)
        payload = frame[start + 4 * (frame[start + 12] >> 4) : end]
        if payload:
            pieces[(ends, len(first.get(ends, ())))][number] = payload
    return {key: assembled(found, first[key[0]][key[1] - 1]) for key, found in pieces.items() if key[1]}


def assembled(found, begin):
    """Segments in order of their numbers; what was sent again is taken once; a gap is an error."""
    whole = bytearray()
    for number in sorted(found, key=lambda each: (each - begin) % 2**32):
        at = (number - begin) % 2**32
        if at > 2**31:
            continue  # a probe before the first byte
        assert at <= len(whole), "a segment is missing from the capture"
        whole += found[number][len(whole) - at :]
    return bytes(whole)


def record_types(stream):
    """The types of the TLS records that a stream consists of.

    Raises:
        AssertionError: If a byte of it belongs to no record.
    """
    types, at = [], 0
    while at < len(stream):
        kind, major, minor, size = (
            struct.unpack_from(">BBBH", stream, at) if len(stream) - at >= 5 else (0,) * 4
        )
        if len(stream) - at < 5 or at + 5 + size > len(stream):  # cut by a kill
            assert stream[at] in RECORD_TYPES
            break
        assert kind in RECORD_TYPES
        assert major == 3
        assert minor in (1, 3)
        assert 0 < size <= MAX_RECORD_BYTES
        types.append(kind)
        at += 5 + size
    return types
