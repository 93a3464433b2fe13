"""A whole consortium in one process, phase by phase, so that a test can drop or alter any message."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.plan import Lane, RoundPlan
from tasks.secure_aggregation import coordinator, partner
from tasks.secure_aggregation.vector import SecureSum

COUNT = Lane(name="count", length=3, ring_bits=64, value_bits=40)
UPDATE = Lane(name="update", length=5, ring_bits=16, value_bits=12, clip=1.0)
WIDE = Lane(name="wide", length=4, ring_bits=32, value_bits=22, clip=4.0)

Alter = Callable[[str, dict[str, bytes]], dict[str, bytes]]


def secret(*words: object) -> bytes:
    return hashlib.sha256(repr(words).encode()).digest()


@dataclass
class Consortium:
    """n partners and a coordinator; `gone` names who falls silent before a phase is answered."""

    n: int
    threshold: int
    lanes: tuple[Lane, ...] = (UPDATE, COUNT)
    attempt: int = 0
    root_label: str = "root"
    seed: int = 7
    plan_fields: Mapping[str, Any] = field(default_factory=dict)
    blinding_secret: bytes | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        self.names = tuple(f"p{i:03d}" for i in range(self.n))
        self.signing = {name: Ed25519PrivateKey.from_private_bytes(secret("id", name)) for name in self.names}
        self.identities = {name: key.public_key().public_bytes_raw() for name, key in self.signing.items()}
        self.plan = RoundPlan(
            **{
                "run_id": "run-1",
                "round": 3,
                "attempt": self.attempt,
                "study": "sums",
                "cohort": self.names,
                "threshold": self.threshold,
                "lanes": self.lanes,
                **self.plan_fields,
            }
        )
        self.states: dict[str, Any] = {}

    @cached_property
    def contributions(self) -> dict[str, dict[str, np.ndarray]]:
        rng = np.random.default_rng(self.seed)
        return {name: {lane.name: self._values(lane, rng) for lane in self.lanes} for name in self.names}

    @staticmethod
    def _values(lane: Lane, rng: np.random.Generator) -> np.ndarray:
        if lane.clip is None:
            largest = 2 ** (lane.value_bits - 1) - 1
            return rng.integers(-largest, largest, lane.length, endpoint=True)
        return (rng.normal(size=lane.length) * lane.clip / 3).astype(np.float32)

    def root(self, name: str) -> bytes:
        return secret(self.root_label, self.attempt, name)

    def adverts(self, names: Collection[str] | None = None) -> dict[str, bytes]:
        out = {}
        for name in self.names if names is None else names:
            self.states[name], out[name] = partner.begin(
                self.plan,
                me=name,
                root=self.root(name),
                signer=self.signing[name].sign,
                identities=self.identities,
            )
        return out

    def shares(
        self,
        adverts: Mapping[str, bytes],
        names: Collection[str],
        sent: Mapping[str, bytes] | None = None,
    ) -> dict[str, bytes]:
        out = {}
        for name in names:
            self.states[name], out[name] = self.states[name].share(adverts, sent=(sent or {}).get(name))
        return out

    def masked(self, shares: Mapping[str, bytes], names: Collection[str]) -> dict[str, bytes]:
        out = {}
        for name in names:
            self.states[name], chunks = self.states[name].mask(
                shares,
                self.contributions[name],
                rounding_key=secret("rounding", name),
                blinding_secret=self.blinding_secret,
                workers=self.workers,
            )
            out[name] = b"".join(chunks)
        return out

    def confirmations(self, survivors: Collection[str], names: Collection[str]) -> dict[str, bytes]:
        out = {}
        for name in names:
            self.states[name], out[name] = self.states[name].confirm(tuple(survivors))
        return out

    def unmaskings(self, confirmations: Mapping[str, bytes], names: Collection[str]) -> dict[str, bytes]:
        out = {}
        for name in names:
            self.states[name], out[name] = self.states[name].unmask(confirmations)
        return out

    def run(self, *gone: Collection[str], alter: Alter | None = None) -> SecureSum:
        """Run all phases; ``gone[i]`` are the partners that fall silent before phase i and stay so."""
        return Journey(self, [set(g) for g in gone] + [set()] * (5 - len(gone)), alter).run()


@dataclass
class Journey:
    """One run: collects each phase's messages from those still there, refuses what does not verify."""

    consortium: Consortium
    gone: list[set[str]]
    alter: Alter | None
    refused: dict[str, str] = field(default_factory=dict)
    log: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def run(self) -> SecureSum:
        c = self.consortium
        alive = [n for n in c.names if n not in self.gone[0]]
        opened = coordinator.begin(c.plan, identities=c.identities)
        adverts = self._accept("advert", c.adverts(alive), opened.check_advert)
        advertised = opened.adverts(adverts)
        alive = [n for n in adverts if n not in self.gone[1]]
        shares = self._accept("shares", c.shares(adverts, alive), advertised.check_shares)
        shared = advertised.shares(shares)
        alive = [n for n in shares if n not in self.gone[2]]
        masked = self._accept("masked", c.masked(shares, alive), shared.check_masked)
        survived = shared.masked(masked)
        alive = [n for n in masked if n not in self.gone[3]]
        confirmations = c.confirmations(survived.survivors, alive)
        confirmations = self._accept("confirmation", confirmations, survived.check_confirmation)
        confirmed = survived.confirmations(confirmations)
        alive = [n for n in confirmations if n not in self.gone[4]]
        unmaskings = self._accept("unmasking", c.unmaskings(confirmations, alive), confirmed.check_unmasking)
        return confirmed.unmask(unmaskings)

    def _accept(self, phase, messages, check):
        from data_contracts.errors import ProtocolError

        self.log[phase] = dict(messages)
        accepted = {}
        for sender, message in (self.alter(phase, messages) if self.alter else messages).items():
            try:
                check(sender, message)
            except ProtocolError as exc:
                self.refused[sender] = str(exc)
            else:
                accepted[sender] = message
        return accepted
