"""Three pictures: uplift per partner, the consortium's rounds, and a partner's endpoints.

Why: a person decides on a picture; figures alone hide the endpoint that got worse. Runs: anywhere.
Source: colours of Okabe & Ito (2008), told apart by the colour-blind; shapes differ as well.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.evaluation.metrics import PERFECT
from tasks.evaluation.uplift import Uplift

NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "log_loss": "log-loss"}
ARMS: Mapping[str, tuple[str, str, str]] = {
    "single": ("#56606b", "o", "single partner"),
    "federated": ("#0072B2", "D", "federated"),
    "pooled": ("#E69F00", "s", "all data pooled"),
    "logistic": ("#009E73", "^", "logistic regression"),
    "boosted": ("#CC79A7", "v", "boosted trees"),
}
"""Colour, marker and legend of each arm."""
BETTER, WORSE = "#0072B2", "#D55E00"
INK, FAINT = "#2b2f33", "#c9ced3"
DPI = 160


def draw_uplift(
    path: Path, partners: Mapping[str, Uplift], *, metric: str = "auprc", simulated_assays: bool = False
) -> None:
    """Draw each partner's arms as dots with bootstrap intervals, and its uplift in words.

    Args:
        path: PNG to write.
        partners: Uplift by partner name.
        metric: Which metric to show.
        simulated_assays: Whether the title must say that the assays are simulated.
    """
    figure, axes = figure_with_axes(width=8.2, height=1.7 + 0.75 * len(partners))
    shown: set[str] = set()
    for row, uplift in enumerate(partners.values()):
        found = uplift.metrics[metric]
        for offset, (arm, interval) in zip(
            np.linspace(-0.27, 0.27, len(found.arms)), found.arms.items(), strict=True
        ):
            colour, marker, legend = ARMS[arm]
            axes.hlines(row + offset, interval.low, interval.high, color=colour, lw=1.6, alpha=0.55)
            label = legend if arm not in shown else None
            shown.add(arm)
            axes.plot(interval.value, row + offset, marker, color=colour, ms=7, label=label, ls="none")
        words = f"{found.uplift.value:+.3f} [{found.uplift.low:+.3f}, {found.uplift.high:+.3f}]"
        axes.annotate(
            f"uplift\n{words}\n{uplift.n_endpoints} endpoints",
            (1.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            color=INK,
        )
    axes.set_yticks(range(len(partners)), list(partners))
    axes.set_ylim(len(partners) - 0.5, -0.5)
    axes.grid(axis="x", color=FAINT, lw=0.6)
    better = "higher" if PERFECT[metric] else "lower"
    axes.set_xlabel(
        f"mean {NAMES[metric]} over endpoints of the test fold ({better} is better); 95 % bootstrap"
    )
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=len(ARMS),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.1,
        columnspacing=0.9,
    )
    save_picture(
        figure, axes, path, title="What federation gives, test fold", simulated_assays=simulated_assays
    )


def draw_rounds(
    path: Path,
    rounds: Sequence[int],
    curves: Mapping[str, Sequence[float | None]],
    *,
    simulated_assays: bool = False,
) -> None:
    """Draw the consortium's validation metrics by round, one panel each, and mark the best round.

    Args:
        path: PNG to write.
        rounds: Round numbers.
        curves: Per metric one mean per round; None where too few endpoints were counted to show it.
        simulated_assays: Whether the title must say that the assays are simulated.
    """
    figure = Figure(figsize=(3.4 * max(len(curves), 1) + 0.4, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (metric, curve) in enumerate(curves.items()):
        axes = figure.add_subplot(1, len(curves), place + 1)
        _plain(axes)
        values = np.array([np.nan if value is None else value for value in curve], dtype=np.float64)
        axes.plot(rounds, values, color=BETTER, lw=1.8, marker="o", ms=3.5)
        if np.isfinite(values).any():
            best = int(np.nanargmax(values) if PERFECT[metric] else np.nanargmin(values))
            axes.plot(rounds[best], values[best], "o", ms=9, mfc="none", mec=WORSE, mew=1.8)
            axes.set_title(
                f"{NAMES[metric]}: best {values[best]:.3f} in round {rounds[best]}", fontsize=9.5, color=INK
            )
        axes.set_xlabel("round")
        axes.grid(color=FAINT, lw=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(
        _title(
            "The shared model on all partners' validation folds (means from secure sums)",
            simulated=simulated_assays,
        ),
        fontsize=11,
        color=INK,
    )
    _write(figure, path)


def draw_endpoints(
    path: Path,
    single: npt.NDArray[np.float64],
    federated: npt.NDArray[np.float64],
    *,
    metric: str = "auprc",
    sizes: npt.NDArray[np.int64] | None = None,
    simulated_assays: bool = False,
) -> None:
    """Draw a partner's endpoints, single against federated; for the partner's own eyes.

    Args:
        path: PNG to write.
        single: Metric of the partner's own model, shape ``(n_endpoints,)``.
        federated: Metric of the federated model, the same shape.
        metric: Name of the metric.
        sizes: Number of test labels per endpoint; larger endpoints get larger dots.
        simulated_assays: Whether the title must say that the assays are simulated.
    """
    figure, axes = figure_with_axes(width=5.6, height=5.6)
    gain = (federated - single) * (1 if PERFECT[metric] else -1)
    area = 22.0 if sizes is None else 8 + 60 * np.sqrt(sizes / max(int(sizes.max()), 1))
    area = np.broadcast_to(np.asarray(area, dtype=np.float64), gain.shape)
    low, high = float(min(single.min(), federated.min())), float(max(single.max(), federated.max()))
    margin = 0.04 * (high - low or 1.0)
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=INK, lw=0.8, ls=(0, (4, 3)))
    for better, colour, marker, word in ((True, BETTER, "o", "better"), (False, WORSE, "v", "worse")):
        chosen = gain > 0 if better else gain < 0
        axes.scatter(
            single[chosen],
            federated[chosen],
            s=area[chosen],
            c=colour,
            marker=marker,
            alpha=0.6,
            linewidths=0,
            label=f"{int(chosen.sum())} endpoints {word} with federation",
        )
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_xlabel(f"{NAMES[metric]}, single partner")
    axes.set_ylabel(f"{NAMES[metric]}, federated")
    axes.grid(color=FAINT, lw=0.6)
    axes.legend(loc="upper left" if PERFECT[metric] else "lower right", frameon=False, fontsize=8.5)
    save_picture(figure, axes, path, title="Your endpoints, test fold", simulated_assays=simulated_assays)


def _title(words: str, *, simulated: bool) -> str:
    return f"{words} (simulated assays)" if simulated else words


def figure_with_axes(*, width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of a size in inches with one pair of plain axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    """Take away what carries no data."""
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, length=3)


def save_picture(figure: Figure, axes: Axes, path: Path, *, title: str, simulated_assays: bool) -> None:
    """Write a figure under a title that says whether the assays are simulated."""
    words = _title(title, simulated=simulated_assays)
    axes.set_title(words, fontsize=11, color=INK, loc="left", pad=26 if axes.get_legend() else 10)
    _write(figure, path)


def _write(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
