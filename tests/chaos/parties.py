"""A consortium of separate processes that are supervised as services are: who fails is started again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flows import processes, services
from tests.chaos.links import Relay
from tests.sites.hosts import ROOT, TABLES, last_object, motet

PARTNERS = ("partner-a", "partner-b", "partner-c", "partner-d")
PARTIES = ("coordinator", *PARTNERS)
EVERYBODY = ("mailbox", *PARTIES)
MOST_RESTARTS = 8
CLOCK_SOURCE = Path(__file__).with_name("clock.c")
DISK_BYTES = 400 * 2**20
CLOCK = "clock"


@dataclass
class Running:
    """One party's process, and what became of those before it."""

    command: list
    process: subprocess.Popen | None = None
    codes: list = field(default_factory=list)
    gone: bool = False
    restart_at: float = 0.0

    @property
    def is_done(self) -> bool:
        return bool(self.codes) and self.codes[-1] == 0

    @property
    def gave_up(self) -> bool:
        return self.process is None and not self.is_done and len(self.codes) > MOST_RESTARTS


class Parties:
    """All sites, made once; many runs follow."""

    def __init__(self, root: Path, dataset) -> None:
        self.root, self.dataset = root, dataset
        self.running: dict[str, Running] = {}
        self.mounted: list[Path] = []
        self.port, inner = processes.free_port(), processes.free_port()
        self.relay = Relay(("127.0.0.1", inner), self.owners)
        self._mount_small_disks()
        self.clocks = self._build_clocks()
        self._enrol(f"127.0.0.1:{self.port}", f"127.0.0.1:{inner}")
        self.relay.start(self.port)
        for party in PARTIES:
            self._start_prefect(party)
        self.start("mailbox", ["mailbox"])

    def at(self, party: str) -> Path:
        place = self.root / party
        place.mkdir(parents=True, exist_ok=True)
        return place

    def home(self, party: str) -> Path:
        return self.at(party) / "motet-home"

    @property
    def missing_kinds(self) -> tuple[str, ...]:
        """Disturbances that need what this machine has not: the right to mount, or a C compiler."""
        disks = () if self.mounted else ("fill the disk of",)
        return disks if self.clocks else (*disks, "move the clock of")

    @property
    def messages(self) -> Path:
        return self.home("mailbox") / "mailbox" / "messages"

    @property
    def blobs(self) -> Path:
        return self.home("mailbox") / "mailbox" / "blobs"

    def owners(self) -> dict:
        """Which process belongs to whom."""
        found = {name: one.process for name, one in self.running.items() if one.process is not None}
        return {process.pid: name for name, process in found.items()}

    def _mount_small_disks(self) -> None:
        for party in EVERYBODY:
            command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "motet-chaos", str(self.at(party))]
            if subprocess.run(command, check=False, capture_output=True).returncode == 0:
                self.mounted.append(self.at(party))

    def _build_clocks(self) -> Path | None:
        """What lets each party's clock be moved; None without a C compiler."""
        library = self.root / "clock.so"
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            return None
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(CLOCK_SOURCE), "-ldl"]
        return library if subprocess.run(command, check=False, capture_output=True).returncode == 0 else None

    def _enrol(self, address: str, listen: str) -> None:
        def do(party, *arguments):
            return motet(*arguments, cwd=self.at(party))

        do("mailbox", "init", "mailbox", "--name", "mailbox", "--address", address, "--listen", listen)
        do("coordinator", "init", "coordinator", "--name", "coordinator")
        for name in PARTNERS:
            files = [word for table in TABLES for word in (f"--{table}", f"{table}.parquet")]
            for table in TABLES:
                shutil.copy(getattr(self.dataset.files(name), table), self.at(name) / f"{table}.parquet")
            granted = ("--grant", "chaos", "--expires", "2099-12-31", "--simulated")
            do(name, "init", "partner", "--name", name, *files, *granted)
        enrolments = [self.home(party) / "enrolment.json" for party in ("mailbox", *PARTNERS)]
        digest = last_object(do("coordinator", "roster", "make", *enrolments, "--json"))["digest"]
        roster = self.home("coordinator") / "roster.json"
        for party in ("mailbox", *PARTNERS):
            do(party, "roster", "accept", roster, "--digest", digest)

    def _start_prefect(self, party: str) -> None:
        """A lasting server, as a site has; `motet join` and `motet lead` use it."""
        home = self.home(party)
        process = services._start_prefect(home, port=processes.free_port(), detached=True)
        processes.write_record(services._record(home, "prefect"), process)

    def start(self, party: str, command: list) -> None:
        one = self.running.setdefault(party, Running(command))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        if self.clocks is not None:
            environment |= {"LD_PRELOAD": str(self.clocks), "MOTET_CLOCK": str(self.at(party) / CLOCK)}
        with (self.at(party) / "log").open("a") as log:
            one.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flows.cli", *map(str, one.command)],
                cwd=self.at(party),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )

    def kill(self, party: str, *, comes_back_after: float | None) -> None:
        one = self.running[party]
        if one.process is None or one.is_done:
            return
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait()
        one.process = None
        one.codes.append(-signal.SIGKILL)
        one.gone = comes_back_after is None
        one.restart_at = time.monotonic() + (comes_back_after or 0.0)

    def supervise(self) -> bool:
        """Start again what failed; whether everybody who is left has finished."""
        for party, one in self.running.items():
            if one.process is not None and one.process.poll() is not None:
                one.codes.append(one.process.wait())
                one.process, one.restart_at = None, time.monotonic() + 1.0
            waits = one.process is None and not one.is_done and not one.gone
            if waits and len(one.codes) <= MOST_RESTARTS and time.monotonic() >= one.restart_at:
                self.start(party, one.command)
        parties = [self.running[party] for party in PARTIES if party in self.running]
        return all(one.is_done or one.gone or one.gave_up for one in parties)

    def gave_up(self, party: str) -> bool:
        """Whether a party has failed more often than it is started again."""
        return party in self.running and self.running[party].gave_up

    def begin_run(self, run_id: str, *, seed: int, training: tuple, listed: list) -> None:
        for party in PARTIES:
            self.running.pop(party, None)
            (self.at(party) / "log").write_text("")
        (self.at("coordinator") / "catalogue.txt").write_text("\n".join(listed))
        for name in PARTNERS:
            self.start(name, ["join", "--run-id", run_id, "--json"])
        of_run = ("--run-id", run_id, "--seed", seed, "--catalogue", "catalogue.txt", "--simulated", "--json")
        self.start("coordinator", ["lead", "--data-set", "chaos", *of_run, *training])

    def end_run(self) -> None:
        for party in PARTIES:
            one = self.running.get(party)
            if one is not None and one.process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(one.process.pid, signal.SIGKILL)
                one.process.wait()
                one.process = None

    def said(self, party: str) -> str:
        return (self.at(party) / "log").read_text(errors="replace")

    def result(self, party: str, run_id: str) -> dict | None:
        path = self.home(party) / "runs" / run_id / "result.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def close(self) -> None:
        self.end_run()
        mailbox = self.running.pop("mailbox", None)
        if mailbox is not None and mailbox.process is not None:
            mailbox.process.kill()
            mailbox.process.wait()
        self.relay.close()
        for party in PARTIES:
            services.down(self.home(party))
        for place in self.mounted:
            subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)
