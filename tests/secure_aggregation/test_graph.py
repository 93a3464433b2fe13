"""The neighbour graph: its bounds against an oracle, its guarantee against every survivor set, its sums."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from data_contracts.errors import TooFewPartners
from data_contracts.plan import Lane
from tasks.secure_aggregation.graph import Graph, _quantile, draw_graph, ring_parameters
from tests.secure_aggregation.consortium import Consortium, Journey, secret

TINY = (Lane(name="count", length=2, ring_bits=32, value_bits=20),)


def connected(graph: Graph, members: set[str]) -> bool:
    seen, todo = set(), [min(members)]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += graph.peers(name, among=members)
    return seen == members


@given(st.integers(5, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_the_tail_bound_is_the_hypergeometric_quantile(population, data):
    marked = data.draw(st.integers(0, population))
    drawn = data.draw(st.integers(1, population))
    bits = data.draw(st.integers(1, 40))
    x = _quantile(population, marked, drawn, bits=bits, n_events=3)
    limit = 2.0**-bits / 3
    distribution = hypergeom(population, marked, drawn)
    assert distribution.sf(x) <= limit * (1 + 1e-6)
    assert x == 0 or distribution.sf(x - 1) > limit * (1 - 1e-6)


@pytest.mark.parametrize(("n", "n_corrupt"), [(61, 4), (100, 10), (300, 30), (300, 99), (1000, 100)])
def test_the_degree_satisfies_its_three_bounds_and_no_smaller_one_does(n, n_corrupt):
    def holds(half: int, threshold: int) -> bool:
        safety, liveness = 2.0**-104, 2.0**-30
        corrupt, lost = hypergeom(n - 1, n_corrupt, 2 * half), hypergeom(n - 1, n // 10, 2 * half)
        return (
            2 * n * hypergeom(n - 1, n_corrupt, half).sf(threshold - half - 1) <= safety * 1.001
            and n * corrupt.sf(threshold - 1) <= safety * 1.001
            and n * lost.sf(2 * half - threshold) <= liveness * 1.001
        )

    parameters = ring_parameters(n, n_corrupt=n_corrupt)
    assert holds(parameters.half_degree, parameters.threshold)
    half = parameters.half_degree - 1
    assert not any(holds(half, threshold) for threshold in range(half, 2 * half + 1))


def test_a_third_colluding_needs_nearly_everybody_as_neighbour():
    """With adversarial dropouts the published degrees of SecAgg+ do not suffice; ours says what does."""
    assert ring_parameters(100, n_corrupt=33).half_degree * 2 == 88
    assert ring_parameters(300, n_corrupt=30).half_degree * 2 == 120
    assert ring_parameters(61, n_corrupt=30) is None


@pytest.mark.parametrize(("half", "corrupt"), [(2, set()), (3, set()), (3, {0, 7})])
def test_no_survivor_set_that_partners_accept_splits_the_honest(half, corrupt):
    """Exhaustive over all survivor sets of a ring of fourteen; one less than the threshold would not do."""
    names = tuple(f"p{i:02d}" for i in range(14))
    worst = max(len({(start + step) % 14 for step in range(half)} & corrupt) for start in range(14))
    graph = Graph(order=names, half_degree=half, threshold=half + worst + 1)
    loose = Graph(order=names, half_degree=half, threshold=half + worst)
    accepted, split = 0, 0
    for size in range(3, 15):
        for survivors in combinations(names, size):
            if not loose.isolated(survivors):
                honest = {name for name in survivors if names.index(name) not in corrupt}
                whole = connected(graph, honest)
                split += not whole
                if not graph.isolated(survivors):
                    accepted += 1
                    assert whole
    assert accepted > 1
    assert split, "the bound would not be tight"


def test_the_graph_is_drawn_from_all_adverts_and_symmetric():
    names = [f"p{i:03d}" for i in range(80)]
    first, again, other = (
        draw_graph(names, transcript=secret(label), n_corrupt=4, threshold=42) for label in (1, 1, 2)
    )
    assert first == again != other
    assert not first.is_complete
    for name in names:
        assert name in first.holders(name)
        assert len(first.holders(name)) == 2 * first.half_degree + 1
        assert all(name in first.holders(peer) for peer in first.holders(name))
    assert draw_graph(names[:60], transcript=secret(1), n_corrupt=4, threshold=42).is_complete


def test_a_sum_over_neighbours_is_exact_and_needs_fewer_masks():
    n = 64
    consortium = Consortium(n, 34, TINY)
    gone = [set(), {"p003"}, {"p010", "p020"}, {"p030"}, {"p040"}]
    journey = Journey(consortium, gone, None)
    total = journey.run()
    graph = consortium.states["p000"]
    survivors = set(consortium.names) - {"p003", "p010", "p020"}
    assert set(total.survivors) == survivors
    np.testing.assert_array_equal(
        total.values["count"], np.sum([consortium.contributions[s]["count"] for s in survivors], axis=0)
    )
    assert len(journey.log["shares"]["p000"]) < 30 * (170 + 1100) + 15 * 1160
    assert graph.survivors == total.survivors


def test_partners_refuse_survivors_that_leave_somebody_nearly_alone():
    consortium = Consortium(64, 34, TINY)
    shares = consortium.shares(consortium.adverts(), consortium.names)
    consortium.masked(shares, ["p000"])
    state = consortium.states["p000"]
    graph = state._graph
    lonely = next(name for name in graph.order if name not in graph.holders("p000"))
    lost = [name for name in graph.holders(lonely) if name != lonely][
        : 2 * graph.half_degree - graph.threshold + 1
    ]
    survivors = [name for name in consortium.names if name not in lost]
    assert len(survivors) >= 34
    with pytest.raises(TooFewPartners, match=f"too few neighbours of .*{lonely}"):
        state.confirm(survivors)
    state.confirm([name for name in consortium.names if name not in lost[1:]])


def test_the_coordinator_knows_when_enough_neighbours_have_answered():
    consortium = Consortium(64, 34, TINY)
    from tasks.secure_aggregation import coordinator

    adverts = consortium.adverts()
    shares = consortium.shares(adverts, consortium.names)
    masked = consortium.masked(shares, consortium.names)
    shared = (
        coordinator.begin(consortium.plan, identities=consortium.identities).adverts(adverts).shares(shares)
    )
    confirmations = consortium.confirmations(consortium.names, consortium.names)
    confirmed = shared.masked(masked).confirmations(confirmations)
    order = confirmed._graph.order
    assert confirmed.is_enough(consortium.names)
    few = order[:40]  # forty neighbours in a row leave the far side of the ring without holders
    assert not confirmed.is_enough(few)
    unmaskings = consortium.unmaskings(confirmations, few)
    with pytest.raises(TooFewPartners, match="too few holders of the shares of"):
        confirmed.unmask(unmaskings)
