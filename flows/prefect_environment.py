"""Settings of Prefect's server and of its clients, as environment variables.

Why: Prefect reads its settings from the environment when it is imported, so they are made here, at the edge, and
nowhere else. Runs: on every site. Source: own measurements (docs/results.md); Prefect 3.8 settings.
"""

from pathlib import Path

HEARTBEAT_SECONDS = 600  # each costs a message; a dead run is found after three

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_LOGGING_COLORS": "false",
}
# One message a transaction is Prefect's default; a batch costs a fraction of the CPU.
_BATCHES = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "2",
}
# What a site waits for takes hours: late runs, pauses and leftovers need no look every few seconds.
_CALM = {
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "30",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "30",
    "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "30",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT30S",
}
# Needed by schedules, automations, workers and pauses; a server that lives for one run has none of these.
_SERVICES_OF_A_SITE = (
    "SCHEDULER",
    "LATE_RUNS",
    "FOREMAN",
    "PAUSE_EXPIRATIONS",
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "REPOSSESSOR",
    "TRIGGERS",
    "DB_VACUUM",
)


def server_environment(home: Path, *, port: int, for_one_run: bool) -> dict[str, str]:
    """Make the environment of a Prefect server.

    Args:
        home: The site's home; the server's database lies in ``<home>/prefect``.
        port: Its port on loopback.
        for_one_run: Leave out the services that only a lasting server needs.

    Returns:
        Variables to add to the process's environment.
    """
    environment = {
        **_QUIET,
        **_BATCHES,
        "PREFECT_HOME": str(_prefect_home(home)),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # V2 asks a foreign host for its configuration
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT__SERVER_FINAL": "1",
    }
    if for_one_run:
        switched_off = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _SERVICES_OF_A_SITE}
        return environment | switched_off | {"PREFECT_API_BLOCKS_REGISTER_ON_START": "false"}
    return environment | _CALM | {"PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs"}


def client_environment(home: Path, *, port: int) -> dict[str, str]:
    """Make the environment of a process that runs flows against a site's server.

    Args:
        home: The site's home.
        port: The server's port on loopback.

    Returns:
        Variables to set before Prefect is imported.
    """
    return {
        **_QUIET,
        "PREFECT_HOME": str(_prefect_home(home)),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(_prefect_home(home) / "results"),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "motet",  # a run's own lines show on its page
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }


def _prefect_home(home: Path) -> Path:
    return (home / "prefect").resolve()
