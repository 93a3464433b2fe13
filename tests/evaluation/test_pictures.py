"""The pictures are drawn, say what they must say, and come out the same each time."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from tasks.evaluation.metrics import EndpointMetrics
from tasks.evaluation.pictures import draw_endpoints, draw_rounds, draw_uplift
from tasks.evaluation.uplift import compare


@pytest.fixture
def words(monkeypatch):
    """All text of the figures that get saved, through the real savefig."""
    seen: list[str] = []
    save = Figure.savefig

    def spy(figure, *args, **kwargs):
        for axes in figure.axes:
            seen.extend((axes.get_title(), axes.get_title(loc="left"), axes.get_xlabel()))
            seen.extend(label.get_text() for label in axes.get_yticklabels())
        if figure.get_suptitle():
            seen.append(figure.get_suptitle())
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    return seen


def _uplift(seed):
    rng = np.random.default_rng(seed)
    single = rng.uniform(0.5, 0.9, 30)

    def arm(shift):
        value = np.clip(single + rng.normal(shift, 0.04, 30), 0.01, 0.99)
        counts = np.full(30, 12)
        return EndpointMetrics(counts, counts, auroc=value, auprc=value, log_loss=1 - value)

    return compare(
        {"single": arm(0), "federated": arm(0.03), "pooled": arm(0.05)}, np.ones(30, bool), rng=rng
    )


def test_uplift_picture_names_every_partner_and_says_simulated(tmp_path, words):
    partners = {f"partner-{letter}": _uplift(n) for n, letter in enumerate("abcd")}
    draw_uplift(tmp_path / "uplift.png", partners, simulated_assays=True)
    assert set(partners) <= set(words)
    assert any("simulated assays" in text for text in words)
    assert imread(tmp_path / "uplift.png").shape[1] > 1000


@pytest.mark.parametrize("metric", ["auroc", "log_loss"])
def test_a_picture_of_real_assays_does_not_say_simulated(tmp_path, words, metric):
    draw_uplift(tmp_path / "uplift.png", {"partner-a": _uplift(0)}, metric=metric)
    assert not any("simulated" in text for text in words)


def test_rounds_picture_marks_the_best_round_and_survives_hidden_means(tmp_path, words):
    curves = {"auprc": [None, 0.6, 0.7, 0.65], "log_loss": [0.9, 0.5, 0.4, 0.6], "auroc": [None] * 4}
    draw_rounds(tmp_path / "rounds.png", [1, 2, 3, 4], curves, simulated_assays=True)
    assert "AUPRC: best 0.700 in round 3" in words
    assert "log-loss: best 0.400 in round 3" in words
    assert any("simulated assays" in text for text in words)


def test_endpoint_picture_is_the_same_bytes_each_time(tmp_path):
    rng = np.random.default_rng(0)
    single, federated = rng.random(50), rng.random(50)
    for name in ("one.png", "two.png"):
        draw_endpoints(
            tmp_path / name, single, federated, sizes=rng.integers(10, 11, 50), simulated_assays=True
        )
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
