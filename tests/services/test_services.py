"""Prefect, MLflow and the served deployment, started and stopped for real, once."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_contracts.errors import SettingsError, WorkFailed
from flows import processes, services
from flows.prefect_environment import client_environment, server_environment
from tests.services.test_processes import wait_until_gone


def ask(url, body=None):
    request = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def bring_up(home):
    return services.up(home, prefect_port=processes.free_port(), mlflow_port=processes.free_port())


@pytest.fixture(scope="module")
def first_start(home):
    yield bring_up(home)
    services.down(home)


@pytest.fixture
def started(home, first_start):
    """Everything runs, whatever the test before has stopped."""
    return bring_up(home)


@pytest.fixture
def urls(started):
    return {service.name: service.url for service in started.services}


@pytest.mark.timeout(300)
def test_up_starts_everything_and_a_second_up_starts_nothing(home, first_start, started):
    assert first_start.changed == services.SERVICES
    assert [service.state for service in started.services] == ["running"] * 3
    again = services.up(home)
    assert again.changed == ()
    assert again.services == started.services


def test_the_interface_asks_the_server_that_served_it(urls):
    settings = ask(f"{urls['prefect']}/ui-settings")
    assert settings["api_url"] == f"{urls['prefect']}/api"


def test_the_deployment_is_served_with_its_limit_its_sleeping_schedule_and_no_path(urls, home):
    deployment = ask(f"{urls['prefect']}/api/deployments/name/{services.DEPLOYMENT}")
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert [schedule["active"] for schedule in deployment["schedules"]] == [False]
    assert deployment["parameters"] == {"home": str(home.resolve())}
    assert deployment["entrypoint"] == "flows.consortium.consortium"
    assert not deployment["pull_steps"]  # a site runs what is installed there


def test_servers_listen_on_loopback_only(urls):
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    for url in (urls["prefect"], urls["mlflow"]):
        port = f"{int(url.rsplit(':', 1)[1]):04X}"
        addresses = {
            line.split()[1].split(":")[0] for line in listening if line.split()[1].endswith(f":{port}")
        }
        assert "0100007F" in addresses
        assert "00000000" not in addresses


def test_mlflow_refuses_a_foreign_host_name(urls):
    request = urllib.request.Request(
        f"{urls['mlflow']}/ajax-api/2.0/mlflow/experiments/search?max_results=1",
        headers={"Host": "evil.example"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=20):
        pass
    assert refused.value.code == 403
    refused.value.close()


def answer_to(url, body=None, *, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data=data, headers={"Content-Type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code


WEBHOOK = {
    "name": "w",
    "url": "https://203.0.113.9/x",
    "events": [{"entity": "MODEL_VERSION", "action": "CREATED"}],
}


@pytest.mark.parametrize(
    ("path", "body", "method", "answer"),
    [
        ("ajax-api/3.0/mlflow/assistant/providers", None, "GET", 404),
        ("ajax-api/3.0/mlflow/assistant/config", None, "GET", 404),
        ("ajax-api/3.0/mlflow/assistant/config", {"providers": {}}, "PUT", 404),
        ("ajax-api/3.0/mlflow/assistant/message", {"message": "ls"}, "POST", 404),
        ("gateway/mlflow/v1/chat/completions", {"model": "m", "messages": []}, "POST", 501),
        ("api/2.0/mlflow/webhooks", WEBHOOK, "POST", 400),
    ],
)
def test_mlflow_runs_no_commands_and_tells_nobody_elsewhere(urls, path, body, method, answer):
    assert answer_to(f"{urls['mlflow']}/{path}", body, method=method) == answer
    assert answer_to(f"{urls['mlflow']}/version") == 200


def test_a_run_uses_the_server_that_stands(home, started):
    told = []
    with services.prefect_server(home, meanwhile=told.append) as server:
        assert not server.ours
        assert server.process.pid == started.services[0].pid
        assert told == [server.environment]
        assert server.environment["PREFECT_API_URL"] == f"{server.url}/api"
    assert services.status(home)[0].state == "running"


@pytest.mark.timeout(300)
def test_what_is_registered_and_not_served_is_started_and_serves_when_up_says_so(home, started, urls):
    deployment = f"{urls['prefect']}/api/deployments/name/{services.DEPLOYMENT}"
    (serving,) = (service for service in started.services if service.name == "serve")
    processes.stop(processes.identify(serving.pid), grace_seconds=10)
    since = datetime.now(UTC) + timedelta(seconds=2)
    assert ask(deployment)["last_polled"]  # still registered, and once served
    assert not services._is_served(deployment, since=since)
    assert services.up(home).changed == ("serve",)
    assert services._is_served(deployment, since=since)


def test_down_ends_all_and_leaves_no_process(home, started):
    running = [processes.identify(service.pid) for service in started.services]
    everybody = [member for process in running for member in (process, *processes.descendants(process))]
    assert len(everybody) == 3  # each is one process
    outcome = services.down(home)
    assert outcome.changed == ("serve", "mlflow", "prefect")
    assert not [member for member in everybody if member.runs()]
    assert {service.state for service in outcome.services} == {"stopped"}
    assert services.down(home).changed == ()


@pytest.mark.timeout(300)
def test_no_server_survives_the_kill_of_the_run_that_started_it(tmp_path):
    home = tmp_path
    source = (
        "import signal, sys; from pathlib import Path; from flows import services\n"
        f"with services.prefect_server(Path({str(home)!r})) as server:\n"
        "    assert server.ours; print(server.process.pid, server.url, flush=True); signal.pause()"
    )
    run = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    with run, run.stdout:
        pid, url = run.stdout.readline().split()
        assert ask(f"{url}/api/health") is True
        server = processes.identify(int(pid))
        run.send_signal(signal.SIGKILL)
    assert wait_until_gone(server.pid)
    assert not server.runs()
    assert services.status(home)[0].state == "stopped"


def test_a_taken_port_stops_up_before_anything_is_started(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match="for Prefect cannot be used"):
            services.up(tmp_path, prefect_port=taken.getsockname()[1])
    assert {service.state for service in services.status(tmp_path)} == {"stopped"}


def test_a_service_that_ends_at_once_is_a_named_failure(tmp_path):
    with pytest.raises(WorkFailed, match="mlflow did not start: it ended with code 3") as failed:
        services._start(
            tmp_path,
            "mlflow",
            [sys.executable, "-c", "raise SystemExit(3)"],
            environment={},
            port=processes.free_port(),
            detached=True,
        )
    assert "mlflow.log" in failed.value.advice


def test_a_stale_record_is_stopped_and_not_somebody_elses_process(tmp_path):
    own = processes.identify(os.getpid())
    stale = processes.Process(own.pid, own.started + 1, own.boot, 4200)
    processes.write_record(tmp_path / "services" / "prefect.json", stale)
    assert services.status(tmp_path)[0].state == "stopped"
    services.down(tmp_path)
    assert not (tmp_path / "services" / "prefect.json").exists()
    assert own.runs()


def test_nobody_is_told_anything_and_a_run_pays_for_no_idle_service(tmp_path):
    lasting = server_environment(tmp_path, port=4200, for_one_run=False)
    short = server_environment(tmp_path, port=4200, for_one_run=True)
    for environment in (lasting, short, client_environment(tmp_path, port=4200)):
        assert environment["DO_NOT_TRACK"] == "1"
        assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert short["PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED"] == "false"
    assert "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED" not in lasting
