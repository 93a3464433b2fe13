"""Where structures are featurized: on processes of this machine, or block by block on machines that share a directory.

Why: a partner with many cores elsewhere uses them, and nothing else changes: the same answers in the same order, so the
same shards. Runs: on the partner. Source: own; docs/decisions/0026.

A block is as many structures as a shard of the cache holds. It is named by a digest of keyed names, which tells nothing
to whoever has no key, and it is a file: no structure travels in an argument, through a scheduler or as a pickle.
"""

import contextlib
import itertools
import json
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from rdkit import rdBase

from data_contracts.errors import WorkFailed
from tasks.exchange.durable_files import replace_whole
from tasks.featurization.feature_cache import Digests, names_from, shard_name
from tasks.featurization.structure_recipe import StructureRecipe
from tasks.featurization.worker import ANSWER, REQUEST, Options
from tasks.featurization.worker_pool import Deadlines, WorkerPool

CHUNK_STRUCTURES = 500
CHUNKS_A_SHARD = 16
BLOCK_STRUCTURES = CHUNK_STRUCTURES * CHUNKS_A_SHARD
OPTIONS, BLOCK_SUFFIX, ANSWER_SUFFIX = "options.json", ".block.arrow", ".answer.arrow"
RDKIT = b"rdkit"
FeaturizeBlocks = Callable[[Path, Sequence[str]], None]


class Executor(Protocol):
    """Featurizes structures somewhere."""

    def answers(
        self, chunks: Iterable[Any], *, digests: Digests, recipe: StructureRecipe, shared: Path
    ) -> Generator[Any]:
        """Featurize structures.

        Args:
            chunks: ``pa.StringArray`` without nulls, all but the last of ``CHUNK_STRUCTURES``.
            digests: Keyed digest of each structure.
            recipe: What happens to them; no key of it leaves this process.
            shared: A directory that may be used, and that survives until the answers are cached.

        Yields:
            Record batches of ``worker.ANSWER``, in order, of at most ``CHUNK_STRUCTURES`` rows.

        Raises:
            WorkFailed: If the work cannot be done.
        """
        ...


@dataclass(frozen=True)
class Processes:
    """Long-lived processes of this machine.

    Attributes:
        workers: How many.
    """

    workers: int

    def answers(
        self,
        chunks: Iterable[Any],
        *,
        digests: Digests,  # noqa: ARG002 - of the protocol
        recipe: StructureRecipe,
        shared: Path,  # noqa: ARG002 - of the protocol
    ) -> Generator[Any]:
        """As ``Executor.answers``."""
        with WorkerPool(self.workers, options=recipe.options, deadlines=recipe.deadlines) as pool:
            yield from pool.map(chunks)


@dataclass(frozen=True)
class SharedBlocks:
    """Machines that share a directory: blocks lie there, and answers come to lie beside them.

    Attributes:
        featurize: Has ``answer_block`` called for every named block, anywhere.
    """

    featurize: FeaturizeBlocks

    def answers(
        self, chunks: Iterable[Any], *, digests: Digests, recipe: StructureRecipe, shared: Path
    ) -> Generator[Any]:
        """As ``Executor.answers``; blocks that were answered before the work was interrupted are found again."""
        blocks = self._blocks(iter(chunks), digests, shared)
        given = {"options": asdict(recipe.options), "deadlines": asdict(recipe.deadlines)}
        replace_whole(shared / OPTIONS, [json.dumps(given).encode()])
        missing = [block for block in blocks if not (shared / f"{block}{ANSWER_SUFFIX}").exists()]
        if missing:
            self.featurize(shared, missing)
        for block, n_rows in blocks.items():
            yield from _read_answer(shared / f"{block}{ANSWER_SUFFIX}", n_rows=n_rows)
        shutil.rmtree(shared)

    @staticmethod
    def _blocks(chunks: Iterator[Any], digests: Digests, shared: Path) -> dict[str, int]:
        """Write the blocks that are not there yet, and return the length of each by its name."""
        shared.mkdir(parents=True, exist_ok=True, mode=0o700)
        blocks = {}
        for start in range(0, len(digests), BLOCK_STRUCTURES):
            inside = digests[start : start + BLOCK_STRUCTURES]
            block = shard_name(names_from(inside))
            own = list(itertools.islice(chunks, -(-len(inside) // CHUNK_STRUCTURES)))
            if not (shared / f"{block}{ANSWER_SUFFIX}").exists():
                batches = [pa.record_batch([chunk], schema=REQUEST) for chunk in own]
                replace_whole(shared / f"{block}{BLOCK_SUFFIX}", [_file_of(batches, REQUEST)])
            blocks[block] = len(inside)
        return blocks


def answer_block(shared: Path, block: str) -> None:
    """Featurize one block and write the answer beside it; an answer that is there already is left.

    Args:
        shared: The directory of the blocks.
        block: Its name.

    Raises:
        WorkFailed: If this machine does not see the block, or its featurization worker cannot work.
    """
    if (shared / f"{block}{ANSWER_SUFFIX}").exists():
        return
    try:
        given = json.loads((shared / OPTIONS).read_bytes())
        with pa.OSFile(str(shared / f"{block}{BLOCK_SUFFIX}")) as file, pa.ipc.open_file(file) as reader:
            chunks = [reader.get_batch(number).column(0) for number in range(reader.num_record_batches)]
    except (OSError, ValueError):
        raise WorkFailed(
            "a machine of the cluster does not see the directory of blocks",
            advice="prepare into a directory that all machines of the cluster share under the same path",
        ) from None
    options, deadlines = Options(**given["options"]), Deadlines(**given["deadlines"])
    with WorkerPool(1, options=options, deadlines=deadlines) as pool:
        answers = list(pool.map(chunks))
    schema = ANSWER.with_metadata({RDKIT: rdBase.rdkitVersion.encode()})
    replace_whole(shared / f"{block}{ANSWER_SUFFIX}", [_file_of(answers, schema)])
    with contextlib.suppress(FileNotFoundError):
        (shared / f"{block}{BLOCK_SUFFIX}").unlink()


def _file_of(batches: Sequence[Any], schema: Any) -> Any:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return memoryview(sink.getvalue())


def _read_answer(path: Path, *, n_rows: int) -> Iterator[Any]:
    """Yield the validated batches of an answer."""
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (OSError, pa.ArrowException):
        path.unlink(missing_ok=True)
        raise WorkFailed(
            "a block came back without a readable answer",
            advice="run the same command again: it is asked for once more",
        ) from None
    rdkit = (table.schema.metadata or {}).get(RDKIT, b"unknown").decode()
    if rdkit != rdBase.rdkitVersion or table.schema != ANSWER or table.num_rows != n_rows:
        path.unlink()
        raise WorkFailed(
            f"a machine of the cluster answered with RDKit {rdkit}, this one has {rdBase.rdkitVersion}, or with "
            f"{table.num_rows} of {n_rows} structures; nothing of it was used",
            advice="install the same motet and RDKit on all machines of the cluster",
        )
    for batch in table.to_batches():
        yield batch.replace_schema_metadata(None) if hasattr(batch, "replace_schema_metadata") else batch
