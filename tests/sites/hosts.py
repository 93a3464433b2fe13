"""Hosts of a consortium: a directory and processes each, driven by the guide's own commands."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from flows import processes

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "running-a-consortium.md"
PARTNERS = ("partner-a", "partner-b", "partner-c")
OTHERS = ("mailbox", *PARTNERS)
TRAINING = ("--hidden", "16", "--rounds", "2", "--local-epochs", "1", "--batch-size", "32")
PATIENCE_SECONDS = 600
TABLES = ("activities", "structures", "assays")


def motet(*arguments, cwd, check=True, inside=(), environment=None):
    """Run one command as a person would; ``inside`` is what enters the host."""
    done = subprocess.run(
        [*inside, sys.executable, "-P", "-m", "flows.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
    )
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


def last_object(done):
    return json.loads(done.stdout.splitlines()[-1])


def on_one_machine(dataset, place):
    """The run that separate hosts are held against, with everybody on one machine: its result, and its directory."""
    settings = ["--run-id", "first", "--no-pooled-arm", *TRAINING, "--json"]
    done = motet("run", "--data", dataset.path, *settings, cwd=place)
    return last_object(done), place / "motet-home" / "runs" / "first"


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
    address: str = "127.0.0.1"
    running: dict = field(default_factory=dict)
    commands_run: list = field(default_factory=list)

    def at(self, host):
        place = self.root / host
        place.mkdir(parents=True, exist_ok=True)
        return place

    def home(self, host):
        return self.at(host) / ("mailbox-home" if host == "mailbox" else "motet-home")

    def inside(self, host):  # noqa: ARG002 - of one machine there is one
        """What a command starts with to run on this host."""
        return []

    def environment(self, host):  # noqa: ARG002 - nobody has set any
        """Variables that this host's administrator has set."""
        return {}

    def on(self, host, command, **replaced):
        """A command of the guide as a person on this host would type it."""
        self.commands_run.append(command)
        told = {"acme": host, "mailbox.example.org:8443": f"{self.address}:{self.port}", **replaced}
        return [told.get(word, word) for word in command]

    def do(self, host, command, *more, check=True, **replaced):
        return motet(
            *self.on(host, command, **replaced),
            *more,
            cwd=self.at(host),
            check=check,
            inside=self.inside(host),
            environment=self.environment(host),
        )

    def start(self, host, command, *more, **replaced):
        log = (self.at(host) / "log").open("a")
        with log:
            self.running[host] = subprocess.Popen(
                [
                    *self.inside(host),
                    *(sys.executable, "-P", "-m", "flows.cli"),
                    *self.on(host, command, **replaced),
                    *more,
                ],
                cwd=self.at(host),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment(host)},
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


def enrol(hosts, dataset, *, same_secrets_as, others=OTHERS, asks=()):
    """The guide's first part; the partners' secrets are then made those of another run.

    Stewards of the partners in ``asks`` want to be asked for every run.
    """
    for role in ("mailbox", "coordinator", "auditor"):
        if role == "coordinator" or role in others:
            hosts.do(role, guide_command("init", role))
    for name in PARTNERS:
        for table in TABLES:
            shutil.copy(getattr(dataset.files(name), table), hosts.at(name) / f"{table}.parquet")
        told = {"qsar-2026": dataset.name} | ({"--grant": "--ask"} if name in asks else {})
        hosts.do(name, guide_command("init", "partner"), *_invented(dataset), **told)
        keys = same_secrets_as / "partners" / name / "keys"
        shutil.copy(keys / "site_secret", hosts.home(name) / "keys")
    first = same_secrets_as / "partners" / PARTNERS[0] / "keys" / "consortium_secret"
    shutil.copy(first, hosts.home(PARTNERS[0]) / "keys")  # the first by name proposes it to the others
    for host in others:
        shutil.copy(hosts.home(host) / "enrolment.json", hosts.at("coordinator") / f"{host}.json")
    given = {"acme.json": "partner-a.json", "bolt.json": "partner-b.json", "cure.json": "partner-c.json"}
    more = ["auditor.json"] if "auditor" in others else []
    make = guide_command("roster", "make")
    made = last_object(hosts.do("coordinator", make, *more, "--json", **given))
    (hosts.at("coordinator") / "roster-digest").write_text(json.dumps(made["digest"]))


def accept_everywhere(hosts, *, others=OTHERS):
    """Pin the coordinator's newest roster at every site."""
    accept = guide_command("roster", "accept")
    digest = json.loads((hosts.at("coordinator") / "roster-digest").read_text())
    for host in others:
        shutil.copy(hosts.home("coordinator") / "roster.json", hosts.at(host))
        home = ("--home", hosts.home(host)) if host == "mailbox" else ()
        hosts.do(host, accept[: accept.index("--digest") + 2], *home, DIGEST=digest)
    hosts.commands_run += [each for each in guide_commands() if each[:2] == ["roster", "accept"]]


def begin(hosts, dataset, *, training=TRAINING, others=OTHERS):
    """The guide's second and third part: pin the roster, serve, look around, join, lead."""
    serve, join, doctor = (guide_command(word) for word in ("mailbox", "join", "doctor"))
    accept_everywhere(hosts, others=others)
    hosts.start("mailbox", serve)
    for name in PARTNERS:
        hosts.start(name, join)
        hosts.await_message(f"roster-*/r00000-a0/roster-accepted/{name}.json")  # one Prefect starts at a time
    looked = hosts.do("partner-a", doctor, check=False), hosts.do("coordinator", doctor, check=False)
    assert all(f"answers at {hosts.address}" in each.stdout for each in looked)
    (hosts.at("coordinator") / "catalogue.txt").write_text("\n".join(dataset.catalogue))
    told = {"qsar-2026": dataset.name}
    hosts.start("coordinator", guide_command("lead"), *_invented(dataset), *training, **told)
    return serve, join


def _invented(dataset):
    return ["--simulated"] if dataset.card.simulated_assays else []


def structures_of(dataset, name):
    """A partner's structures, as SMILES."""
    return pq.read_table(dataset.files(name).structures)["smiles"].to_pylist()


def own_structures(dataset, name):
    """Fifty long structures that no other partner has, as bytes to look for."""
    others = {text for other in PARTNERS if other != name for text in structures_of(dataset, other)}
    own = [text.encode() for text in structures_of(dataset, name) if text not in others and len(text) > 30]
    assert own
    return own[:50]
