"""Five hosts on one cable each, with what a real site has: PostgreSQL below one Prefect, a password before one MLflow."""

import os
import shutil
from dataclasses import dataclass

import pyarrow.compute as pc
import pytest
from pyarrow import csv

from tasks.simulation.wide_import import import_wide_table
from tests.hosts import postgresql
from tests.hosts.network import PORT, Network
from tests.hosts.postgresql import Cluster
from tests.sites.hosts import ROOT, Hosts, on_one_machine

CHEMBL = ROOT.parent / "shared" / "data" / "chembl_5thresh.csv.gz"
TARGETS, MOLECULES = 5, 900
PROGRAMS = ("ip", "nft", "tcpdump", "setpriv")


@pytest.fixture(scope="session")
def machine():
    """Skips, by name, where the machine cannot be divided into hosts."""
    if os.geteuid() != 0:
        pytest.skip("five hosts need root, to make network namespaces")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or postgresql.programs() is None:
        pytest.skip(f"five hosts need Debian's iproute2, nftables, tcpdump, postgresql; missing: {missing}")
    network = Network()
    try:
        network.build()
    except Exception as exc:  # noqa: BLE001 - a container may forbid it in many ways
        network.close()
        pytest.skip(f"this machine makes no network namespaces: {type(exc).__name__}")
    yield network
    network.close()


@pytest.fixture(scope="session")
def dataset(machine, tmp_path_factory):
    """A slice of ChEMBL: the molecules measured at the largest targets, split into three companies."""
    if not CHEMBL.exists():
        pytest.skip(f"five hosts train on ChEMBL, and {CHEMBL.name} is not in {CHEMBL.parent}")
    table = csv.read_csv(CHEMBL)
    sizes = {name: len(table) - table[name].null_count for name in table.column_names[1:]}
    targets = sorted(sizes, key=lambda name: (-sizes[name], name))[:TARGETS]
    table = table.select(["smiles", *targets])
    measured = pc.invert(pc.is_null(pc.coalesce(*(table[name] for name in targets))))
    place = tmp_path_factory.mktemp("chembl")
    csv.write_csv(table.filter(measured).slice(0, MOLECULES).combine_chunks(), place / "slice.csv")
    return import_wide_table(place / "slice.csv", directory=place / "data", partners=3, seed=0)


@pytest.fixture(scope="session")
def reference(dataset, tmp_path_factory):
    """The same run with everybody on one machine."""
    return on_one_machine(dataset, tmp_path_factory.mktemp("one-machine"))


@dataclass
class DividedHosts(Hosts):
    """The same hosts, each in its namespace."""

    network: Network | None = None
    database: Cluster | None = None

    def inside(self, host):
        return self.network.inside(host)

    def environment(self, host):
        if host != "coordinator":
            return {}
        return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database.url}


@pytest.fixture(scope="session")
def divided(machine, tmp_path_factory):
    """Hosts and a database that end with the tests."""
    database = Cluster(inside=machine.inside("coordinator"))
    hosts = DividedHosts(
        tmp_path_factory.mktemp("divided"),
        port=PORT,
        address=machine.address("mailbox"),
        network=machine,
        database=database,
    )
    try:
        database.start()
        yield hosts
    finally:
        hosts.end()
        database.close()
