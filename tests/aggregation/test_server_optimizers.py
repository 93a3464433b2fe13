"""The server's step: FedAvg is the plain mean, momentum accumulates, nonsense is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_contracts.errors import UpdateMismatch
from tasks.aggregation.server_optimizers import clip_for_next_round, server_step

vectors = arrays(np.float32, 7, elements=st.floats(-1, 1, width=32))


@given(trunk=vectors, update=vectors)
def test_fedavg_moves_the_trunk_by_exactly_the_mean_update(trunk, update):
    moved, velocity = server_step(trunk, update, server_learning_rate=1.0)

    assert velocity is None
    np.testing.assert_array_equal(moved, trunk + update)


def test_momentum_keeps_half_of_the_last_velocity():
    trunk, update = np.zeros(2, np.float32), np.array([1.0, -2.0], np.float32)

    first, velocity = server_step(trunk, update, server_learning_rate=1.0, momentum=0.5)
    second, _ = server_step(first, update, server_learning_rate=1.0, momentum=0.5, velocity=velocity)

    assert second.tolist() == [2.5, -5.0]  # 1 + (1 + 0.5), by hand


def test_the_step_leaves_its_arguments_alone():
    trunk, update = np.ones(3, np.float32), np.ones(3, np.float32)

    server_step(trunk, update, server_learning_rate=0.5, momentum=0.9, velocity=np.ones(3, np.float32))

    assert trunk.tolist() == update.tolist() == [1, 1, 1]


def test_an_infinite_mean_is_refused():
    with pytest.raises(UpdateMismatch, match="not finite"):
        server_step(np.zeros(2, np.float32), np.array([1, np.inf], np.float32), server_learning_rate=1.0)


def test_a_mean_of_another_shape_is_refused():
    with pytest.raises(UpdateMismatch, match="shape"):
        server_step(np.zeros(2, np.float32), np.zeros(3, np.float32), server_learning_rate=1.0)


@given(updates=arrays(np.float32, (4, 5), elements=st.floats(-1, 1, width=32)))
def test_the_next_clip_covers_a_coordinate_that_one_partner_alone_moved(updates):
    updates[1:] = 0

    clip = clip_for_next_round(updates.mean(axis=0), n_partners=4, ceiling=10.0)

    assert np.abs(updates).max() <= clip * (1 + 1e-6)


def test_the_next_clip_never_exceeds_the_ceiling_nor_vanishes():
    assert clip_for_next_round(np.array([5.0]), n_partners=4, ceiling=0.1) == 0.1
    assert clip_for_next_round(np.zeros(3), n_partners=4, ceiling=0.1) == 1e-6
