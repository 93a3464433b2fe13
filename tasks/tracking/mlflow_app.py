"""MLflow's web server without its assistant: ``python -m tasks.tracking.mlflow_app`` takes the options of ``uvicorn``.

Why: MLflow's assistant lets whoever reaches the page, and the language model he names, run commands as the user of the site,
beside its keys; MLflow has no setting to leave it out. Runs: on every site, in place of uvicorn, as ``mlflow_server`` makes it.
Source: own; MLflow 3.17. Where MLflow has no such part under this name, the server does not start.
"""

import uvicorn
from mlflow.server.assistant.api import assistant_router


def main() -> None:
    """Take the assistant's routes away before MLflow's app includes them, then serve."""
    assistant_router.routes.clear()
    uvicorn.main()


if __name__ == "__main__":
    main()
