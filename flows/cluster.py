"""Featurization on a Dask cluster of the partner's own, through Prefect's task runner.

Why: a collection of millions of structures wants more cores than one machine has. Runs: on the partner, inside its
firewall: whoever reaches a Dask scheduler can run code on its workers. Source: own; prefect-dask; docs/decisions/0026.

Names of files travel through the scheduler, never a structure: workers read blocks from a directory that all machines
share and write their answers beside them.
"""

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, unmapped

from data_contracts.errors import MotetError, SettingsError, WorkFailed
from flows.causes import named_cause
from tasks.featurization.executors import Executor, Processes, SharedBlocks
from tasks.featurization.steps import featurization_block

LOCAL = "local"
ADDRESS = r"(tcp|tls)://[A-Za-z0-9.\[\]:-]{1,253}:[0-9]{1,5}"
CONNECT_SECONDS = 15


def executor_of(dask: str | None) -> Executor:
    """Where a site featurizes: on half of this machine's cores, or on a Dask cluster.

    Raises:
        SettingsError: As ``on_dask``.
    """
    workers = max(1, (os.cpu_count() or 1) // 2)
    return Processes(workers) if dask is None else on_dask(dask, workers=workers)


def on_dask(address: str, *, workers: int) -> SharedBlocks:
    """Featurize on a Dask cluster.

    Args:
        address: Of its scheduler, ``tcp://HOST:PORT`` or ``tls://HOST:PORT``; ``local`` starts one on this machine for
            as long as it is needed.
        workers: Processes of a local one.

    Raises:
        SettingsError: If the address is none, or the extra ``dask`` is not installed.
    """
    if address != LOCAL and not re.fullmatch(ADDRESS, address):
        raise SettingsError(
            f"--dask got no address of a scheduler, expected {LOCAL}, tcp://HOST:PORT or tls://HOST:PORT"
        )
    if importlib.util.find_spec("prefect_dask") is None:
        raise SettingsError(
            "--dask needs the package prefect-dask, which is not installed",
            advice="install motet with its extra: pip install 'motet[dask]'",
        )

    def featurize(shared: Path, blocks: Sequence[str]) -> None:
        try:
            featurize_structures.with_options(task_runner=_runner(address, workers=workers))(
                str(shared.resolve()), list(blocks)
            )
        except BaseExceptionGroup as group:
            raise named_cause(group) from None
        except MotetError:
            raise
        except Exception as exc:  # noqa: BLE001 - what a cluster raises may hold anything
            raise WorkFailed(
                f"the Dask cluster could not featurize: got {type(exc).__name__}",
                advice="see whether its scheduler answers and its workers have the same motet installed; what was "
                "finished is kept, the same command goes on",
            ) from None

    return SharedBlocks(featurize)


@flow(name="featurize-structures", flow_run_name="featurize-structures", persist_result=False)
def featurize_structures(directory: str, blocks: list[str]) -> int:
    """Have every block of a shared directory answered.

    Args:
        directory: Where the blocks lie, under the same path on every machine.
        blocks: Their names: digests of keyed names.

    Returns:
        How many there were.
    """
    featurization_block.map(unmapped(directory), blocks).result()
    return len(blocks)


def _runner(address: str, *, workers: int) -> Any:
    from prefect_dask.task_runners import DaskTaskRunner

    if address != LOCAL:
        return DaskTaskRunner(address=address, client_kwargs={"timeout": CONNECT_SECONDS})
    # One thread each: RDKit holds Python's lock. No dashboard: it would listen on a port that nobody asked for.
    here = {"n_workers": workers, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=here)
