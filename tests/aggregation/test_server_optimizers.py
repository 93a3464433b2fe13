"""The server's step: FedAvg is the plain mean, momentum accumulates, nonsense is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_contracts.errors import UpdateMismatch
from tasks.aggregation.server_optimizers import (
    ADAPTIVITY,
    ServerState,
    adam_step,
    clip_for_next_round,
    server_step,
)

vectors = arrays(np.float32, 7, elements=st.floats(-1, 1, width=32))


@given(trunk=vectors, update=vectors)
def test_fedavg_moves_the_trunk_by_exactly_the_mean_update(trunk, update):
    moved, state = server_step(trunk, update, server_learning_rate=1.0)

    assert state is None
    np.testing.assert_array_equal(moved, trunk + update)


def test_momentum_keeps_nine_tenths_of_the_last_velocity():
    trunk, update = np.zeros(2, np.float32), np.array([1.0, -2.0], np.float32)

    first, state = server_step(trunk, update, server_learning_rate=1.0, optimizer="momentum")
    second, _ = server_step(first, update, server_learning_rate=1.0, optimizer="momentum", state=state)

    np.testing.assert_allclose(second, [2.9, -5.8], rtol=1e-6)  # 1 + (1 + 0.9), by hand


def _by_hand(updates, *, yogi):
    """Algorithm 2 of Reddi et al. 2021 for one parameter, in double precision."""
    x, m, v = 0.0, 0.0, ADAPTIVITY**2
    for update in updates:
        m = 0.9 * m + 0.1 * update
        squared = update * update
        v = v - 0.01 * squared * np.sign(v - squared) if yogi else 0.99 * v + 0.01 * squared
        x += 0.5 * m / (np.sqrt(v) + ADAPTIVITY)
    return x


@pytest.mark.parametrize("optimizer", ["adam", "yogi"])
@given(updates=st.lists(st.floats(-0.125, 0.125, width=32), min_size=1, max_size=6))
def test_adaptive_steps_follow_the_paper(optimizer, updates):
    trunk, state = np.zeros(1, np.float32), None
    for update in updates:
        trunk, state = server_step(
            trunk,
            np.array([update], np.float32),
            server_learning_rate=0.5,
            optimizer=optimizer,
            state=state,
        )

    assert trunk[0] == pytest.approx(_by_hand(updates, yogi=optimizer == "yogi"), rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("optimizer", ["average", "momentum", "adam", "yogi"])
def test_the_step_leaves_its_arguments_alone(optimizer):
    trunk, update = np.ones(3, np.float32), np.ones(3, np.float32)
    _, state = server_step(trunk, update, server_learning_rate=0.5, optimizer=optimizer)
    before = [] if state is None else [array.copy() for array in vars(state).values() if array is not None]

    server_step(trunk, update, server_learning_rate=0.5, optimizer=optimizer, state=state)

    assert trunk.tolist() == update.tolist() == [1, 1, 1]
    after = [] if state is None else [array for array in vars(state).values() if array is not None]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("made_by", "used_by"), [("momentum", "adam"), ("adam", "momentum"), ("yogi", "average")]
)
def test_the_state_of_another_optimizer_is_refused(made_by, used_by):
    trunk = np.zeros(3, np.float32)
    _, state = server_step(trunk, trunk, server_learning_rate=1.0, optimizer=made_by)

    with pytest.raises(UpdateMismatch, match=f"does not belong to the optimizer '{used_by}'"):
        server_step(trunk, trunk, server_learning_rate=1.0, optimizer=used_by, state=state)
    with pytest.raises(UpdateMismatch, match="does not belong"):
        server_step(
            np.zeros(4, np.float32),
            np.zeros(4, np.float32),
            server_learning_rate=1.0,
            optimizer=made_by,
            state=state,
        )


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


GRADIENTS = [
    np.array([0.3, -0.2, 0.0, 1e-6]),
    np.array([0.1, 0.4, 0.0, 2e-6]),
    np.array([-0.5, 0.0, 0.0, 0.0]),
]


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_steps_along_a_summed_gradient_are_those_of_torch_where_there_ever_was_a_gradient(weight_decay):
    start = np.array([0.5, -1.0, 2.0, 0.1], dtype=np.float32)
    trained = np.array([True, True, False, True])
    weight = torch.tensor(start[trained], requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.01, weight_decay=weight_decay)
    trunk, state = start, None
    for step, gradient in enumerate(GRADIENTS, 1):
        trunk, state = adam_step(
            trunk, gradient, learning_rate=0.01, weight_decay=weight_decay, step=step, state=state
        )
        weight.grad = torch.tensor(gradient[trained], dtype=torch.float32)
        optimizer.step()
    np.testing.assert_allclose(trunk[trained], weight.detach().numpy(), rtol=1e-5)
    assert trunk[2] == start[2], "decay divided by itself would move what nobody trains"


def test_a_step_along_what_is_no_gradient_of_this_trunk_is_refused():
    trunk = np.zeros(3, dtype=np.float32)
    settings = {"learning_rate": 0.1, "weight_decay": 0.0, "step": 1}
    with pytest.raises(UpdateMismatch, match="shape"):
        adam_step(trunk, np.zeros(4), state=None, **settings)
    with pytest.raises(UpdateMismatch, match="finite"):
        adam_step(trunk, np.array([0, np.nan, 0]), state=None, **settings)
    with pytest.raises(UpdateMismatch, match="state"):
        adam_step(trunk, np.zeros(3), state=ServerState(velocity=trunk, square=None), **settings)
