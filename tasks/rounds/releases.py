"""What has been summed over which partners, so that no two sums of the same data differ by a few of them.

Why: a coordinator that repeats a round with one partner fewer learns that partner's vector by subtraction, and
masks cannot help. Runs: on the partner before it lets a sum be opened; on the coordinator before it opens one.
Source: own; ``tasks.secure_aggregation.differencing`` decides.
"""

from collections.abc import Collection
from pathlib import Path

from data_contracts.canonical_json import canonical_bytes, digest_of, parse_canonical
from data_contracts.plan import RoundPlan
from tasks.exchange.durable_files import create_once
from tasks.secure_aggregation.differencing import check_release
from tasks.secure_aggregation.protocol import MIN_SURVIVORS

MAX_ENTRY_BYTES = 65536


def query_digest(plan: RoundPlan) -> str:
    """Name what a plan asks of a partner's data, so that the same question is known again.

    Real-valued parameters, clips, bits, run, round and attempt are left out: varied by a hair's breadth they
    would make another question of the same data. What counts is the study, the model it starts from, its other
    parameters and the names of its lanes.
    """
    discrete = {name: value for name, value in plan.parameters.items() if not isinstance(value, float)}
    model = plan.model_in.sha256 if plan.model_in else ""
    lanes = sorted(lane.name for lane in plan.lanes)
    return digest_of({"study": plan.study, "model": model, "parameters": discrete, "lanes": lanes})


class ReleaseRegister:
    """A partner's own list of sums that are out or may be, kept over all runs of its site.

    Args:
        directory: Private directory; created on the first entry.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _folder(self, plan: RoundPlan) -> Path:
        return self._directory / query_digest(plan)[:32]

    def record(self, plan: RoundPlan, survivors: Collection[str]) -> None:
        """Remember that the sum over these partners is out, or can no longer be stopped."""
        path = self._folder(plan) / f"{plan.digest[:32]}.json"
        if not path.exists():
            create_once(path, [canonical_bytes({"survivors": sorted(survivors)})])

    def check(self, plan: RoundPlan, survivors: Collection[str]) -> None:
        """Check that this sum, set against those recorded, isolates no few partners.

        Raises:
            AgreementViolation: If it would; nothing may be released.
        """
        released = [
            parse_canonical(path.read_bytes(), who="this site", max_bytes=MAX_ENTRY_BYTES)["survivors"]
            for path in sorted(self._folder(plan).glob("*.json"))
            if path.stem != plan.digest[:32]
        ]
        check_release(survivors, released=released, min_cohort=MIN_SURVIVORS)
