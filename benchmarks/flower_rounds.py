"""Flower's simulation of secured rounds on a trivial model, in Flower's environment.

Why: what a round and a whole job cost elsewhere is measured with that framework's own engine. Runs: in an environment
of its own, started by ``rounds.py``; never imported by motet. Source: `flwr` 1.42, ``run_simulation`` with
``SecAggPlusWorkflow`` and ``secaggplus_mod``, as its own example wires them.
"""

import json
import sys
import time

import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerApp, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.simulation import run_simulation


class Trivial(NumPyClient):
    """A client whose training costs nothing: what is measured is everything else."""

    def fit(self, parameters: list, config: dict) -> tuple:
        """Add a constant."""
        del config
        return [parameters[0] + np.float32(0.001)], 1, {}


def main() -> None:
    """Run the job that standard argument 1 asks for; print when each round ended."""
    asked = json.loads(sys.argv[1])
    ended: list[float] = []

    class Timed(FedAvg):
        def aggregate_fit(self, server_round: int, results: list, failures: list) -> tuple:
            outcome = super().aggregate_fit(server_round, results, failures)
            ended.append(time.monotonic())
            return outcome

    first = ndarrays_to_parameters([np.zeros(asked["parameters"], dtype=np.float32)])
    strategy = Timed(
        fraction_evaluate=0.0, min_fit_clients=asked["partners"], min_available_clients=asked["partners"],
        initial_parameters=first,
    )  # fmt: skip
    app = ServerApp()

    @app.main()
    def serve(grid: object, context: object) -> None:
        legacy = LegacyContext(
            context=context, config=ServerConfig(num_rounds=asked["rounds"]), strategy=strategy
        )
        secured = SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=asked["threshold"])
        DefaultWorkflow(fit_workflow=secured)(grid, legacy)

    client = ClientApp(client_fn=lambda _: Trivial().to_client(), mods=[secaggplus_mod])
    run_simulation(
        server_app=app,
        client_app=client,
        num_supernodes=asked["partners"],
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    print(json.dumps({"ended": ended}))


if __name__ == "__main__":
    main()
