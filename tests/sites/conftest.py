"""A consortium on separate hosts: five directories, five processes, and nothing between them but HTTPS on loopback."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flows import processes
from tasks.simulation.assays import AssaySettings
from tasks.simulation.embedded import EmbeddedSettings, build_embedded_dataset

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "running-a-consortium.md"
PARTNERS = ("partner-a", "partner-b", "partner-c")
TRAINING = ("--hidden", "16", "--rounds", "2", "--local-epochs", "1", "--batch-size", "32")
PATIENCE_SECONDS = 600
TABLES = ("activities", "structures", "assays")


def motet(*arguments, cwd, check=True):
    """Run one command as a person would."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flows.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


def last_object(done):
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Three small simulated companies."""
    settings = EmbeddedSettings(
        max_structures=900, assays=AssaySettings(n_assays=5, n_families=2, median_size=700)
    )
    return build_embedded_dataset(tmp_path_factory.mktemp("data"), partners=3, seed=7, settings=settings)


def guide_commands():
    """The commands of the guide, in order."""
    return [
        shlex.split(line)[1:] for line in re.findall(r"^ {4}(motet .*)$", GUIDE.read_text(), re.MULTILINE)
    ]


def first_commands():
    """Those that lead from empty hosts to the first round."""
    text = GUIDE.read_text().partition("\n## 4. ")[0]
    return re.findall(r"^ {4}(motet .*)$", text, re.MULTILINE)


def guide_command(*words):
    """The first command of the guide that begins so."""
    return next(command for command in guide_commands() if command[: len(words)] == list(words))


@dataclass
class Hosts:
    """One directory per host, and the processes that run there."""

    root: Path
    port: int = field(default_factory=processes.free_port)
    running: dict = field(default_factory=dict)
    commands_run: list = field(default_factory=list)

    def at(self, host):
        place = self.root / host
        place.mkdir(parents=True, exist_ok=True)
        return place

    def home(self, host):
        return self.at(host) / ("mailbox-home" if host == "mailbox" else "motet-home")

    def on(self, host, command, **replaced):
        """A command of the guide as a person on this host would type it."""
        self.commands_run.append(command)
        told = {"acme": host, "mailbox.example.org:8443": f"127.0.0.1:{self.port}", **replaced}
        return [told.get(word, word) for word in command]

    def do(self, host, command, *more, check=True, **replaced):
        return motet(*self.on(host, command, **replaced), *more, cwd=self.at(host), check=check)

    def start(self, host, command, *more, **replaced):
        log = (self.at(host) / "log").open("a")
        with log:
            self.running[host] = subprocess.Popen(
                [sys.executable, "-P", "-m", "flows.cli", *self.on(host, command, **replaced), *more],
                cwd=self.at(host),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def kill(self, host):
        self.running[host].send_signal(signal.SIGKILL)
        self.running.pop(host).wait()

    def said(self, host):
        return (self.at(host) / "log").read_text()

    def await_file(self, host, pattern):
        """Wait until a file lies in a host's site."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not list(self.home(host).glob(pattern)):
            for running, process in self.running.items():
                assert process.poll() is None, self.said(running)[-3000:]
            assert time.monotonic() < deadline
            with suppress(subprocess.TimeoutExpired):
                self.running[host].wait(timeout=0.05)

    def finish(self, host):
        """Wait until a host's command has ended well."""
        code = self.running.pop(host).wait(timeout=PATIENCE_SECONDS)
        assert code == 0, self.said(host)[-3000:]

    def await_message(self, pattern):
        """Wait until a message lies in the mailbox."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        messages = self.home("mailbox") / "mailbox" / "messages"
        while not list(messages.glob(pattern)):
            for host, process in self.running.items():
                assert process.poll() is None, self.said(host)[-3000:]
            assert time.monotonic() < deadline
            with suppress(subprocess.TimeoutExpired):
                next(iter(self.running.values())).wait(timeout=0.05)

    def end(self):
        for process in self.running.values():
            process.kill()
            process.wait()
        self.running.clear()

    def result(self, host, run_id="first"):
        return json.loads((self.home(host) / "runs" / run_id / "result.json").read_bytes())


@pytest.fixture(scope="session")
def make_hosts(tmp_path_factory):
    """Makes hosts whose processes end with the tests."""
    made = []

    def make():
        made.append(Hosts(tmp_path_factory.mktemp("hosts")))
        return made[-1]

    yield make
    for hosts in made:
        hosts.end()
