"""Hashed keys, against Python sets."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.keys import KnownKeys, SeenKeys, hash_keys

KEYS = st.lists(st.one_of(st.none(), st.text("ab\x00é", max_size=3), st.sampled_from(["k" * 127, "k" * 128, "k" * 129, "k" * 130])), max_size=40)  # fmt: skip


def test_a_hundred_and_fifty_thousand_regular_identifiers_have_as_many_hashes():
    # Laboratory numbering differs in a few digits only: the hardest case for a fast hash.
    numbers = np.arange(150_000)
    plain = pa.array(numbers.astype(str))
    padded = pa.array([f"COMPOUND-{i % 1000:05d}-{i // 1000:08d}" for i in numbers])
    for column in (plain, padded, pa.array(numbers), pa.array(numbers << 32)):
        hashes, valid = hash_keys([column])
        assert valid.all()
        assert len(np.unique(hashes)) == len(numbers)
    pair, _ = hash_keys([pa.array(numbers // 1000), pa.array(numbers % 1000)])
    assert len(np.unique(pair)) == len(numbers)


def test_each_bit_of_the_hash_is_set_for_about_half_of_the_keys():
    hashes, _ = hash_keys([pa.array([f"C{i:06d}" for i in range(50_000)])])
    shares = [float(((hashes >> np.uint64(bit)) & np.uint64(1)).mean()) for bit in range(64)]
    assert max(abs(share - 0.5) for share in shares) < 0.02  # 9 standard deviations of a fair coin


@settings(max_examples=150, deadline=None)
@given(keys=KEYS, batch_rows=st.integers(1, 9))
def test_repetitions_are_found_across_batches_like_a_set_finds_them(keys, batch_rows):
    seen, model, expected, found = SeenKeys(), set(), [], []
    for key in keys:
        expected.append(key is not None and key in model)
        model.add(key)
    for chunk in pa.table({"k": pa.array(keys, pa.string())}).to_batches(max_chunksize=batch_rows):
        mask = seen.repetitions([chunk.column(0)])
        found += [False] * len(chunk) if mask is None else mask.tolist()
    assert found == expected


@settings(max_examples=150, deadline=None)
@given(known=KEYS, asked=KEYS)
def test_strangers_are_found_like_a_set_finds_them(known, asked):
    mask = KnownKeys(pa.array(known, pa.string())).strangers(pa.array(asked, pa.string()))
    found = [False] * len(asked) if mask is None else mask.tolist()
    assert found == [key is not None and key not in set(known) for key in asked]


def test_a_large_known_set_knows_all_of_its_keys_and_no_other():
    known = KnownKeys(pa.chunked_array([pa.array(range(0, 60_000, 2)), pa.array(range(60_000, 120_000, 2))]))
    mask = known.strangers(pa.array(range(120_000)))
    assert mask.tolist() == [bool(i % 2) for i in range(120_000)]


def test_many_batches_are_kept_in_few_sorted_runs():
    seen = SeenKeys()
    for start in range(0, 40_000, 100):
        assert seen.repetitions([pa.array(range(start, start + 100))]) is None
    assert len(seen._runs) < 12
    assert seen.repetitions([pa.array([39_999, 40_000])]).tolist() == [True, False]
