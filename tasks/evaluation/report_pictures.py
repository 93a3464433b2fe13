"""Pictures of a partner's report beside those in ``pictures``: distributions, honest probabilities, conformal sets.

Why: a person decides on a picture. Runs: on the partner. Source: own; colours as in ``pictures``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.evaluation.comparison import GRID
from tasks.evaluation.pictures import ARMS, FAINT, INK, figure_with_axes, save_picture

FloatVector = npt.NDArray[np.float64]
N_BINS = 10
LINE = (0, (4, 3))


def draw_distribution(path: Path, difference: FloatVector, *, metric: str, simulated_assays: bool) -> None:
    """Draw the federated distribution function minus the single partner's; below the line is better.

    Args:
        path: PNG to write.
        difference: On ``comparison.GRID``.
        metric: Its name, for people.
        simulated_assays: Whether the title must say so.
    """
    figure, axes = figure_with_axes(width=6.4, height=3.2)
    axes.axhline(0, color=INK, lw=0.8, ls=LINE)
    axes.fill_between(
        GRID, difference, 0, where=difference <= 0, color=ARMS["federated"][0], alpha=0.35, lw=0
    )
    axes.fill_between(GRID, difference, 0, where=difference >= 0, color="#D55E00", alpha=0.35, lw=0)
    axes.plot(GRID, difference, color=INK, lw=1.2)
    axes.set(xlim=(0, 1), xlabel=f"{metric} of an endpoint", ylabel="CDF federated - CDF single")
    axes.grid(color=FAINT, lw=0.6)
    save_picture(
        figure,
        axes,
        path,
        title="Below the line, fewer endpoints are this bad",
        simulated_assays=simulated_assays,
    )


def draw_calibration(
    path: Path,
    curves: Mapping[str, tuple[FloatVector, npt.NDArray[np.integer]]],
    *,
    simulated_assays: bool,
) -> None:
    """Draw how often a compound is active against how probable the model says it is.

    Args:
        path: PNG to write.
        curves: Per legend the probabilities and the labels of all counted endpoints together.
        simulated_assays: Whether the title must say so.
    """
    figure, axes = figure_with_axes(width=4.6, height=4.4)
    axes.plot((0, 1), (0, 1), color=INK, lw=0.8, ls=LINE)
    colours = (ARMS["single"][0], ARMS["federated"][0])
    for (legend, (probability, label)), colour, marker in zip(curves.items(), colours, "os", strict=False):
        place = np.minimum((probability * N_BINS).astype(np.int64), N_BINS - 1)
        count = np.bincount(place, minlength=N_BINS)
        shown = count > 0
        said = np.bincount(place, weights=probability, minlength=N_BINS)[shown] / count[shown]
        seen = np.bincount(place, weights=label, minlength=N_BINS)[shown] / count[shown]
        axes.plot(said, seen, color=colour, marker=marker, ms=5, lw=1.4, label=legend)
    axes.set(
        xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="predicted probability", ylabel="share of actives"
    )
    axes.grid(color=FAINT, lw=0.6)
    axes.legend(loc="upper left", frameon=False, fontsize=8.5)
    save_picture(figure, axes, path, title="Honest probabilities", simulated_assays=simulated_assays)


def draw_conformal(
    path: Path,
    levels: Sequence[float],
    efficiency: Mapping[str, Sequence[float]],
    validity: Mapping[str, Sequence[float]],
    *,
    simulated_assays: bool,
) -> None:
    """Draw efficiency beside validity, each against the promise.

    Args:
        path: PNG to write.
        levels: Significance levels.
        efficiency: Per arm the mean share of single-label sets at each level.
        validity: Per arm the mean share of sets that hold the true class.
        simulated_assays: Whether the title must say so.
    """
    figure, axes = figure_with_axes(width=7.2, height=3.6)
    promise = [1 - level for level in levels]
    axes.plot(promise, promise, color=INK, lw=0.8, ls=LINE, label="promised validity")
    for arm, values in efficiency.items():
        colour, marker, legend = ARMS[arm]
        axes.plot(promise, values, color=colour, marker=marker, ms=5, lw=1.6, label=legend)
        axes.plot(promise, validity[arm], color=colour, marker=marker, ms=5, lw=0, mfc="none")
    axes.set(
        xlabel="promised share of true classes in the set; open markers: kept",
        ylabel="share of sets with one class",
        ylim=(0, 1.02),
    )
    axes.set_xticks(promise)
    axes.grid(color=FAINT, lw=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    save_picture(
        figure, axes, path, title="Conformal sets: efficiency and validity", simulated_assays=simulated_assays
    )
