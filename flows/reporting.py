"""What a person sees of a run: MLflow's curves, Prefect's artifacts, and one line a round on the terminal.

Why: the consortium's figures come from secure sums only; a partner's own figures go to its own experiment.
Runs: on the coordinator, and for its own part on a partner. Source: own.
"""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.events import emit_event

from data_contracts.plan import Modality, RoundPlan
from flows.automations import ROUND_COMPLETED, RUN_ENDED
from flows.run_tables import ROUND_SECONDS
from tasks.evaluation.comparison import BARS
from tasks.evaluation.metrics import METRICS_OF
from tasks.evaluation.pictures import NAMES, draw_rounds
from tasks.tracking.runs import TrackedRun, log_files, log_round

logger = logging.getLogger("motet")

SHOWN = ("validation AUPRC", "validation RMSE")
SIMULATED = "Simulated companies on one machine; "
CONTROL = "**Control: the labels are permuted, there is nothing to learn and no arm may gain.**"
SIMULATED_ASSAYS = "**Simulated assays on real molecules: these figures say nothing about any drug.**"


def validated_round(plan: RoundPlan) -> int:
    """The round after which the model stood that this round validates."""
    return int(plan.parameters.get("after_round", plan.round - 1))


def bytes_up(plan: RoundPlan) -> int:
    """Bytes of one partner's masked vector in a round."""
    return sum(lane.length * lane.ring_bits // 8 for lane in plan.lanes)


@dataclass
class RoundReport:
    """Reports the coordinator's rounds as they end.

    Attributes:
        run_id: The run.
        tracked: The coordinator's MLflow run.
        n_rounds: Rounds of the whole run, the catalogue and the evaluations included.
        directory: Where pictures are drawn.
        simulated_assays: Whether every picture must say so.
        control: Name of the control experiment that this is, or None.
        modality: What the run learns; it decides which metrics are shown.
    """

    run_id: str
    tracked: TrackedRun
    n_rounds: int
    directory: Path
    simulated_assays: bool
    control: str | None = None
    modality: Modality = "classification"
    rows: list[dict[str, Any]] = field(default_factory=list)
    _progress: UUID | None = None
    _last: float = field(default_factory=time.monotonic)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that are shown."""
        return METRICS_OF[self.modality]

    async def __call__(self, plan: RoundPlan, outcome: dict[str, Any]) -> None:
        """Report one round."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        metrics = dict(outcome["metrics"])
        measured = {name: metrics.pop(name) for name in tuple(metrics) if name.startswith("validation/")}
        self.rows.append(
            {
                "round": plan.round,
                "study": plan.study,
                "partners": f"{len(outcome['survivors'])} of {len(plan.cohort)}",
                "validation AUPRC": measured.get("validation/auprc"),
                "validation RMSE": measured.get("validation/rmse"),
                "of the model of round": validated_round(plan) if measured else None,
                "training log-loss": metrics.get("train/log_loss", metrics.get("train/loss")),
                "clipped": metrics.get("update/clipped_fraction"),
                "MB up per partner": round(bytes_up(plan) / 1e6, 3),
                "seconds": round(seconds, 1),
            }
        )
        with (self.directory.parent / ROUND_SECONDS).open("a") as file:
            file.write(json.dumps({"round": plan.round, "seconds": round(seconds, 1)}) + "\n")
        extra = {
            "aggregation/survivors": float(len(outcome["survivors"])),
            "communication/bytes_up_per_partner": float(bytes_up(plan)),
            "time/round_seconds": seconds,
        }
        now_ms = int(time.time() * 1000)
        for number, found in ((plan.round, metrics | extra), (validated_round(plan), measured)):
            if found:
                await asyncio.to_thread(log_round, self.tracked, found, round_number=number, time_ms=now_ms)
        await self._advance(plan.round + 1)
        emit_event(ROUND_COMPLETED, resource=run_resource(plan.run_id), payload={"round": plan.round})
        logger.info("%s", _line(self.rows[-1], n_rounds=self.n_rounds))

    async def _advance(self, done: int) -> None:
        percent = 100.0 * done / self.n_rounds
        if self._progress is None:
            self._progress = await acreate_progress_artifact(
                progress=percent, key="rounds", description="Rounds done."
            )
        else:
            await aupdate_progress_artifact(self._progress, progress=percent)

    async def close(
        self, *, validation: Mapping[int, Mapping[str, float]], test: Mapping[str, float]
    ) -> Path:
        """Draw the round curve and publish table, curve and result."""
        emit_event(RUN_ENDED, resource=run_resource(self.run_id))
        picture = self.directory / "rounds.png"
        rounds = sorted(number for number in validation if number)
        draw_rounds(
            picture,
            rounds,
            {metric: [validation[number].get(metric) for number in rounds] for metric in self.metrics},
            simulated_assays=self.simulated_assays,
        )
        await asyncio.to_thread(log_files, self.tracked, {"pictures/rounds.png": picture})
        await acreate_table_artifact(
            table=[{name: _rounded(value) for name, value in row.items()} for row in self.rows],
            key="round-table",
            description=SIMULATED + "all figures are secure sums.",
        )
        await acreate_markdown_artifact(
            markdown=(CONTROL + "\n\n" if self.control else "")
            + result_markdown(
                test, picture=picture, simulated_assays=self.simulated_assays, modality=self.modality
            ),
            key="uplift",
            description="Does joining pay?",
        )
        return picture


def run_resource(run_id: str) -> dict[str, str]:
    """A run as events name it."""
    return {"prefect.resource.id": f"motet.run.{run_id}", "prefect.resource.name": run_id}


async def link_to_mlflow(url: str) -> None:
    """Leave a link to the MLflow run on the Prefect run's page."""
    await acreate_link_artifact(
        link=url,
        link_text="MLflow run",
        key="mlflow-run",
        description="Metrics, pictures and models of the coordinator; `motet up` starts MLflow.",
    )


def result_markdown(
    test: Mapping[str, float],
    *,
    picture: Path,
    simulated_assays: bool,
    modality: Modality = "classification",
) -> str:
    """The consortium's result as Markdown with an inline picture."""
    metrics = METRICS_OF[modality]
    headline = "rmse" if modality == "regression" else "auprc"
    arms = [arm for arm in ("single", "federated", "pooled") if f"test/{arm}/{headline}" in test]
    lines = [
        SIMULATED_ASSAYS if simulated_assays else "",
        "",
        "| arm | " + " | ".join(NAMES[metric] for metric in metrics) + " |",
        "|---" * (len(metrics) + 1) + "|",
        *(
            f"| {arm} | " + " | ".join(_show(test.get(f"test/{arm}/{metric}")) for metric in metrics) + " |"
            for arm in arms
        ),
        "",
        f"Mean RIPtoP of {NAMES[headline]} over all endpoints: **{_show(test.get(f'test/uplift/riptop_{headline}'))}**",
        "",
        *_bars(test),
        f"![validation by round](data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()})",
    ]
    return "\n".join(lines)


def _bars(test: Mapping[str, float]) -> list[str]:
    """Which share of all endpoints federation lifts over a bar, if the consortium may know it."""
    found = {
        bar: [test.get(f"test/shares/auprc_{way}_{bar}") for way in ("lifted", "fallen")] for bar in BARS
    }
    if any(None in ways for ways in found.values()):
        return []
    rows = [f"| {bar} | {_show(lifted)} | {_show(fallen)} |" for bar, (lifted, fallen) in found.items()]
    return ["| AUPRC of | share of endpoints lifted over it | fallen below |", "|---|---|---|", *rows, ""]


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _line(row: Mapping[str, Any], *, n_rounds: int) -> str:
    model = row["of the model of round"]
    shown = [f"{name} {_show(row[name])}" for name in SHOWN if row[name] is not None] or [f"{SHOWN[0]} -"]
    measured = "" if model is None else f"  model {model}: {', '.join(shown)}"
    return (
        f"round {row['round']:>3}/{n_rounds - 1}  {row['study']:<13}  {row['partners']} partners  "
        f"{row['MB up per partner']:.2f} MB up  {row['seconds']:.1f} s{measured}"
    )
