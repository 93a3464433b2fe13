"""The campaign of mishaps finds what it should find; one run of it, with a partner that never comes back."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from tests.chaos import campaign
from tests.chaos.disturbances import KINDS, Disturbance, draw
from tests.chaos.links import Relay, owner_of
from tests.chaos.parties import Parties
from tests.chaos.reference import differences


@pytest.fixture
def echo():
    """A server that gives back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(near,), daemon=True).start()

    def answer(near):
        with near, suppress(OSError):
            while block := near.recv(4096):
                near.sendall(block)

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()
    server.close()


@pytest.fixture
def relay(echo):
    relay = Relay(echo, lambda: {os.getpid(): "partner-a"})
    relay.start(0)
    yield relay
    relay.close()


def asked(relay, data):
    with socket.create_connection(("127.0.0.1", relay.listening.getsockname()[1]), timeout=10) as near:
        near.sendall(data)
        near.shutdown(socket.SHUT_WR)
        answer = b""
        while block := near.recv(4096):
            answer += block
        return answer


def test_a_sound_line_passes_everything_and_its_owner_is_known(relay):
    assert asked(relay, b"x" * 5000) == b"x" * 5000
    with socket.create_connection(("127.0.0.1", relay.listening.getsockname()[1])) as near:
        assert owner_of(near.getsockname()[1], {os.getpid(): "partner-a"}) == "partner-a"


def test_a_cut_line_passes_nothing_until_it_is_mended(relay):
    relay.cut("partner-a")
    answer = b""
    with suppress(OSError):  # reset or closed, as the system likes
        answer = asked(relay, b"x" * 100)
    assert answer == b""
    relay.mend("partner-a")
    assert asked(relay, b"x" * 100) == b"x" * 100


def test_a_garbled_line_changes_one_bit(relay):
    relay.link("partner-a").garble = 1
    sent, got = b"x" * 1000, asked(relay, b"x" * 1000)
    assert len(got) == len(sent)
    changed = np.unpackbits(np.frombuffer(sent, np.uint8) ^ np.frombuffer(got, np.uint8))
    assert changed.sum() == 1


def test_every_kind_of_mishap_gets_its_turn_and_a_seed_repeats_it():
    plans = [draw(seed, n_rounds=5) for seed in range(len(KINDS))]
    assert {plan[0].kind for plan in plans} == set(KINDS)
    assert [list(map(str, plan)) for plan in plans] == [
        list(map(str, draw(seed, n_rounds=5))) for seed in range(len(KINDS))
    ]
    assert "move the clock of" not in {
        one.kind for seed in range(40) for one in draw(seed, n_rounds=5, missing=("move the clock of",))
    }


def test_a_moved_clock_moves_the_time_of_day_and_nothing_else(tmp_path):
    library = Parties._build_clocks(type("AnyPlace", (), {"root": tmp_path})())
    if library is None:
        pytest.skip("no C compiler: clocks cannot be moved")
    (tmp_path / "clock").write_text("7200\n")
    script = "import time; a = time.monotonic(); time.sleep(0.01); print(time.time(), time.monotonic() - a)"
    environment = {**os.environ, "LD_PRELOAD": str(library), "MOTET_CLOCK": str(tmp_path / "clock")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    told, slept = map(float, done.stdout.split())
    assert 7100 < told - time.time() < 7300
    assert slept < 60


def test_an_outcome_that_is_not_the_undisturbed_one_is_seen():
    honest = {"trunk": "a", "survivors": ["x"]}
    assert differences([(honest, dict(honest))]) == []
    assert differences([(honest, dict(honest)), ({**honest, "trunk": "b"}, honest)]) == ["round 1: ['trunk']"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_run_that_loses_a_partner_for_good_ends_in_the_model_of_its_committed_cohorts(
    tmp_path, monkeypatch
):
    lost = Disturbance("never bring back", "partner-b", "r00001-a*/advert/partner-b.json", 0.0)
    monkeypatch.setattr(campaign, "draw", lambda *_, **__: [lost])
    with campaign.consortium(tmp_path) as parties:
        ending = campaign.run_with_mishaps(parties, 1, tmp_path / "undisturbed")
    assert ending.outcome == "equal", [parties.said(party)[-800:] for party in ("coordinator", "partner-a")]
    assert ending.cohorts[0] == 4
    assert ending.cohorts[2] == 3
