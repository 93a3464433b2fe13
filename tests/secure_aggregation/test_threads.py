"""Threads share a vector: the bytes are those of one thread, and the sum stays exact."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import UpdateMismatch
from data_contracts.plan import Lane
from tasks.secure_aggregation.masking import BLOCK_BYTES, STRETCH_BYTES, Keystream, Layout, Masks, in_threads
from tasks.secure_aggregation.quantization import LaneCode, decode, encode
from tasks.secure_aggregation.vector import body_digest
from tests.secure_aggregation.consortium import Consortium, secret
from tests.secure_aggregation.deviations import flip

LANES = (
    Lane(name="a", length=STRETCH_BYTES // 2 * 2 + 12_345, ring_bits=16, value_bits=12, clip=0.1),
    Lane(name="b", length=STRETCH_BYTES // 4 + 3, ring_bits=32, value_bits=22, clip=1.0),
    Lane(name="c", length=1_001, ring_bits=64, value_bits=50),
)


@pytest.fixture(scope="module")
def phases():
    """A consortium of three with lanes of several stretches each, up to the shares."""
    c = Consortium(3, 3, LANES)
    adverts = c.adverts()
    return c, adverts, c.shares(adverts, c.names)


def test_any_number_of_threads_masks_to_the_same_bytes(phases):
    c, _, shares = phases
    state = c.states["p001"]
    bodies = []
    for workers in (1, 2, 5):
        _, (header, body) = state.mask(
            shares, c.contributions["p001"], rounding_key=secret("r"), workers=workers
        )
        bodies.append((bytes(header), body))
    assert bodies[0] == bodies[1] == bodies[2]
    assert len(Layout.of(c.plan).stretches()) > 5


def test_any_number_of_threads_unmasks_to_the_same_bits():
    from tasks.secure_aggregation import coordinator

    c = Consortium(3, 3, LANES[:1], workers=2)
    adverts = c.adverts()
    shares = c.shares(adverts, c.names)
    masked = c.masked(shares, c.names)
    shared = coordinator.begin(c.plan, identities=c.identities).adverts(adverts).shares(shares)
    shared.check_masked("p002", masked["p002"], workers=3)
    confirmations = c.confirmations(c.names, c.names)
    confirmed = shared.masked(masked).confirmations(confirmations)
    unmaskings = c.unmaskings(confirmations, c.names)
    sums = [confirmed.unmask(unmaskings, workers=workers).values["a"] for workers in (1, 2, 5)]
    assert sums[0].tobytes() == sums[1].tobytes() == sums[2].tobytes()
    code, context = LaneCode(LANES[0], n_partners=3), confirmed.attempt.rounding_context
    encoded = [
        encode(code, c.contributions[n]["a"], rounding_key=secret("rounding", n), context=context)[0]
        for n in c.names
    ]
    np.testing.assert_array_equal(sums[0], decode(code, np.sum(encoded, axis=0, dtype="<u2")))
    plain = np.sum([value["a"].astype(float).clip(-0.1, 0.1) for value in c.contributions.values()], axis=0)
    assert np.abs(sums[0] - plain).max() < 3 * 0.1 / 2047 * 1.001


@given(st.integers(0, 3000), st.integers(1, 5000))
@settings(max_examples=40, deadline=None)
def test_a_keystream_can_start_anywhere(blocks, length):
    whole, part = np.empty(16 * blocks + length, np.uint8), np.empty(length, np.uint8)
    Keystream(secret("k")).fill(whole)
    Keystream(secret("k"), start=16 * blocks).fill(part)
    np.testing.assert_array_equal(whole[16 * blocks :], part)


def test_a_keystream_cannot_start_within_a_cipher_block():
    with pytest.raises(ValueError, match="multiple of 16 bytes, not at 8"):
        Keystream(secret("k"), start=8)


def test_streams_from_a_place_on_are_the_tail_of_streams_from_the_start():
    masks = Masks(added=(secret(1), secret(2)), subtracted=(secret(3),))
    whole = np.zeros(BLOCK_BYTES // 4, "<u4")
    masks.streams().apply_to(whole)
    tail = np.zeros(1000, "<u4")
    masks.streams(start=whole.nbytes - tail.nbytes).apply_to(tail)
    np.testing.assert_array_equal(whole[-1000:], tail)


def test_stretches_cover_every_byte_once(phases):
    c, _, _ = phases
    layout = Layout.of(c.plan)
    stretches = layout.stretches()
    assert stretches[0].start == 0
    assert stretches[-1].stop == layout.n_bytes
    for one, following in itertools.pairwise(stretches):
        assert one.stop == following.start
    for stretch in stretches:
        blocks = list(stretch.blocks())
        assert blocks[0].start == stretch.start
        assert blocks[-1].stop == stretch.stop
        assert all(one.stop == two.start for one, two in itertools.pairwise(blocks))


def test_an_error_in_a_thread_reaches_the_caller(phases):
    c, _, _shares = phases

    def fail(stretch):
        raise UpdateMismatch(f"stretch at {stretch.start}")

    with pytest.raises(UpdateMismatch, match="stretch at 0"):
        in_threads(fail, Layout.of(c.plan).stretches(), workers=2)


def test_the_digest_of_a_body_sees_every_block(phases):
    c, _, _ = phases
    layout = Layout.of(c.plan)
    body = bytes(layout.n_bytes)
    digest = body_digest(layout, memoryview(body), workers=2)
    assert digest == body_digest(layout, memoryview(body), workers=1)
    for at in (0, BLOCK_BYTES, STRETCH_BYTES + 5, layout.n_bytes - 1):
        assert body_digest(layout, memoryview(flip(body, at)), workers=2) != digest


def test_masking_needs_little_more_memory_than_the_vector(phases):
    c, _, shares = phases
    state, contribution = c.states["p000"], c.contributions["p000"]
    tracemalloc.start()
    state.mask(shares, contribution, rounding_key=secret("r"), workers=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    n_bytes = Layout.of(c.plan).n_bytes
    assert n_bytes <= peak < n_bytes + 5 * 2**20  # two threads, each with its blocks
