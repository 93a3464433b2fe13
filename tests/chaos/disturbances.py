"""What may happen to a consortium, drawn from a seed: each disturbance waits for a message, then strikes."""

import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.chaos.parties import CLOCK, EVERYBODY, PARTIES, PARTNERS, Parties

SAID_BY_PARTNERS = ("advert", "shares", "masked", "confirmation", "unmasking")
SAID_BY_COORDINATOR = (
    "plan",
    "adverts-closed",
    "shares-closed",
    "survivors",
    "confirmations-closed",
    "result",
)


@dataclass
class Disturbance:
    """One mishap.

    Attributes:
        kind: What happens.
        victim: To whom.
        at: Glob of the message that it waits for, below the run's messages.
        seconds: How long it lasts.
    """

    kind: str
    victim: str
    at: str
    seconds: float
    amount: int = 0
    struck: float | None = None
    over: bool = False
    note: str = ""
    undo: list = field(default_factory=list)

    def __str__(self) -> str:
        when = self.at.replace("r0000", "r").replace("-a*/", " ").removesuffix(".json")
        return f"{self.kind} {self.victim} at {when}" + (f" ({self.note})" if self.note else "")


def draw(seed: int, *, n_rounds: int, missing: tuple = ()) -> list[Disturbance]:
    """Two or three disturbances of a run, of the kinds that this machine can make."""
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in KINDS if kind not in missing]
    chosen = [kinds[seed % len(kinds)]]  # every kind gets its turn, the others by chance
    chosen += [str(kind) for kind in rng.choice(kinds, size=rng.integers(1, 3))]
    return [_draw_one(rng, kind, n_rounds=n_rounds) for kind in chosen]


def _draw_one(rng: np.random.Generator, kind: str, *, n_rounds: int) -> Disturbance:
    victims = {"kill": EVERYBODY, "fill the disk of": EVERYBODY, "never bring back": PARTNERS}
    victim = str(rng.choice(victims.get(kind, PARTIES)))
    speaker = str(rng.choice(PARTNERS)) if rng.random() < 0.6 else "coordinator"
    about = str(rng.choice(SAID_BY_COORDINATOR if speaker == "coordinator" else SAID_BY_PARTNERS))
    if kind in ("corrupt", "withhold", "replay"):
        victim = speaker
    seconds = rng.uniform(1.0, 8.0)
    at = f"r{rng.integers(n_rounds):05d}-a*/{about}/{speaker}.json"
    return Disturbance(kind, victim, at, seconds, amount=int(rng.integers(1, 100)))


def kill(parties: Parties, one: Disturbance, message: Path) -> None:
    parties.kill(one.victim, comes_back_after=one.seconds / 4)
    one.seconds = 0.0


def never_bring_back(parties: Parties, one: Disturbance, message: Path) -> None:
    parties.kill(one.victim, comes_back_after=None)
    one.seconds = 0.0


def freeze(parties: Parties, one: Disturbance, message: Path) -> None:
    process = parties.running[one.victim].process
    if process is not None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)

            def go_on():
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)

            one.undo.append(go_on)


def start_twice(parties: Parties, one: Disturbance, message: Path) -> None:
    """The same command a second time, beside the first; the second must refuse or do no harm."""
    first = parties.running[one.victim].process
    if first is None:
        return
    parties.start(one.victim, [])
    second, parties.running[one.victim].process = parties.running[one.victim].process, first

    def reap():
        if second.poll() is None:
            os.killpg(second.pid, signal.SIGKILL)
        one.note = f"the second ended with code {second.wait()}"

    one.seconds = 30.0
    one.undo.append(reap)


def cut(parties: Parties, one: Disturbance, message: Path) -> None:
    parties.relay.cut(one.victim)
    one.undo.append(lambda: parties.relay.mend(one.victim))


def slow(parties: Parties, one: Disturbance, message: Path) -> None:
    parties.relay.link(one.victim).pause_seconds = 0.3
    one.undo.append(lambda: parties.relay.mend(one.victim))


def garble(parties: Parties, one: Disturbance, message: Path) -> None:
    parties.relay.link(one.victim).garble = 1 + one.amount % 5
    one.undo.append(lambda: parties.relay.mend(one.victim))


def swallow(parties: Parties, one: Disturbance, message: Path) -> None:
    """The request passes, its answer does not: whoever asked asks again."""
    parties.relay.link(one.victim).swallow = 1 + one.amount % 5
    one.undo.append(lambda: parties.relay.mend(one.victim))


def withhold(parties: Parties, one: Disturbance, message: Path) -> None:
    """The mailbox hides a message for a while: late, and out of order."""
    hidden = message.with_suffix(".hidden")
    with suppress(FileNotFoundError):
        message.rename(hidden)

        def show():
            if message.exists():  # its sender has said it again
                hidden.unlink()
            else:
                hidden.rename(message)

        one.undo.append(show)


def corrupt(parties: Parties, one: Disturbance, message: Path) -> None:
    """The mailbox flips a bit of a message for a while, or of the body that it announces."""
    import json

    target = message
    apart = parties.blobs / json.loads(message.read_bytes())["head"]["body"]["sha256"]
    if one.amount % 2 and apart.exists():  # a small body lies in the message itself
        target = apart
        one.note = "body"
    with suppress(FileNotFoundError, PermissionError):
        honest = target.read_bytes()
        if not honest:
            return
        spoilt = bytearray(honest)
        spoilt[one.amount * len(spoilt) // 100] ^= 1
        replace(target, bytes(spoilt))
        one.undo.append(lambda: replace(target, honest))


def replay(parties: Parties, one: Disturbance, message: Path) -> None:
    """The mailbox shows a message again where another one of its sender belongs: the next round's place."""
    number = int(message.parent.parent.name[1:6]) + 1
    place = message.parent.parent.parent / f"r{number:05d}-a0" / message.parent.name / message.name
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(message, place)
        one.note = "stays"


def fill_disk(parties: Parties, one: Disturbance, message: Path) -> None:
    filler = parties.at(one.victim) / "filler"

    def fill():
        with suppress(OSError), filler.open("ab") as file:
            while True:
                file.write(b"\0" * 2**20)
                file.flush()
        with suppress(OSError), filler.open("ab") as file:
            while True:
                file.write(b"\0" * 512)
                file.flush()

    fill()
    one.undo.append(lambda: filler.unlink(missing_ok=True))


def move_clock(parties: Parties, one: Disturbance, message: Path) -> None:
    hours = (one.amount - 50) or 1
    one.note = f"{hours:+d} h"
    (parties.at(one.victim) / CLOCK).write_text(f"{hours * 3600}\n")
    one.undo.append(lambda: (parties.at(one.victim) / CLOCK).unlink(missing_ok=True))


def replace(path: Path, data: bytes) -> None:
    aside = path.with_suffix(".aside")
    aside.write_bytes(data)
    aside.replace(path)


KINDS = {
    "kill": kill,
    "cut off": cut,
    "swallow answers to": swallow,
    "withhold": withhold,
    "corrupt": corrupt,
    "fill the disk of": fill_disk,
    "move the clock of": move_clock,
    "replay": replay,
    "freeze": freeze,
    "start twice": start_twice,
    "garble the line of": garble,
    "never bring back": never_bring_back,
    "slow down": slow,
}


def disturb(parties: Parties, run_id: str, disturbances: list[Disturbance]) -> None:
    """Strike where a message has come, and end what has lasted long enough."""
    for one in disturbances:
        if one.struck is None:
            found = sorted((parties.messages / run_id).glob(one.at))
            if found:
                one.struck = time.monotonic()
                KINDS[one.kind](parties, one, found[-1])
        elif not one.over and time.monotonic() - one.struck >= one.seconds:
            end(one)


def end(one: Disturbance) -> None:
    for undo in one.undo:
        undo()
    one.undo.clear()
    one.over = True
