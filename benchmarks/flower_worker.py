"""Flower's own secure aggregation on given vectors, phase by phase, in Flower's environment.

Why: what another framework costs, and which of its known defects are there, is measured with its own code.
Runs: in an environment of its own, started by ``flower_secure_aggregation.py``; never imported by motet.
Source: `flwr` 1.42 (SecAggPlusWorkflow and secaggplus_mod), driven by a grid within one process.
"""

import json
import logging
import sys
import time
from importlib.metadata import version
from types import SimpleNamespace

import flwr.compat.common.recorddict_compat as compat
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import (
    RECORD_KEY_CONFIGS,
    RECORD_KEY_STATE,
    Key,
    Stage,
)
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow, WorkflowState
from flwr.supercore.primitives.asymmetric import generate_key_pairs
from flwr.supercore.task_identity import TaskIdentity

STAGES = ("setup_stage", "share_keys_stage", "collect_masked_vectors_stage", "unmask_stage")


class Clients:
    """n clients and the grid that calls them, with their CPU time and bytes."""

    def __init__(self, updates: list, *, num_examples: list[int]) -> None:
        n = len(updates)
        self.ids = [1000 + i for i in range(n)]
        self.contexts = {
            i: Context(run_id=1, node_id=i, node_config={}, state=RecordDict(), run_config={})
            for i in self.ids
        }
        self.replies = {
            i: FitRes(Status(Code.OK, ""), ndarrays_to_parameters([update]), num_examples=weight, metrics={})
            for i, update, weight in zip(self.ids, updates, num_examples, strict=True)
        }
        self.seconds = dict.fromkeys(self.ids, 0.0)
        self.bytes_up = dict.fromkeys(self.ids, 0)
        self.gone: dict[str, set[int]] = {}
        self.outside = 0.0

    def send_and_receive(self, messages: list, *, timeout: float | None = None) -> list:
        """What the server calls a grid for: hand each message to its client, return the answers."""
        del timeout
        start = time.thread_time()
        answers = [self.answer(message) for message in messages]
        self.outside += time.thread_time() - start
        return [answer for answer in answers if answer is not None]

    def answer(self, message: Message) -> Message | None:
        """What a client answers, or nothing once it is gone."""
        client = message.metadata.dst_node_id
        stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        if any(client in self.gone.get(known, ()) for known in Stage.all()[: Stage.all().index(stage) + 1]):
            return None
        configs = ConfigRecord(dict(message.content.config_records[RECORD_KEY_CONFIGS]))
        copied = RecordDict({RECORD_KEY_CONFIGS: configs})
        own = Message(copied, dst_node_id=client, message_type="train", group_id="1")
        reply = compat.fitres_to_recorddict(self.replies[client], keep_input=True)
        start = time.thread_time()
        try:
            answer = secaggplus_mod(own, self.contexts[client], lambda msg, _: Message(reply, reply_to=msg))
        finally:
            self.seconds[client] += time.thread_time() - start
        self.bytes_up[client] += size_of(answer.content.config_records[RECORD_KEY_CONFIGS])
        return answer


def size_of(record: ConfigRecord) -> int:
    """Bytes of the values that a client uploads, without any framing."""
    total = 0
    for value in record.values():
        for item in value if isinstance(value, list) else [value]:
            total += len(item) if isinstance(item, bytes | str) else 8
    return total


def play(clients: Clients, *, threshold: int) -> tuple[float, list | None]:
    """One round through the server's four stages; its CPU seconds, and the mean that it ends with."""
    shape = parameters_to_ndarrays(clients.replies[clients.ids[0]].parameters)[0].shape
    workflow = SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=threshold)
    caught: list = []
    proxies = [SimpleNamespace(node_id=i) for i in clients.ids]
    state = RecordDict()
    state[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    state[MAIN_PARAMS_RECORD] = ArrayRecord([np.zeros(shape, np.float32)])
    strategy = SimpleNamespace(
        configure_fit=lambda *_: [
            (proxy, FitIns(ndarrays_to_parameters([np.zeros(1, np.float32)]), {})) for proxy in proxies
        ],
        aggregate_fit=lambda _, results, __: (caught.extend(results), (None, {}))[1],
    )
    context = SimpleNamespace(
        state=state,
        strategy=strategy,
        client_manager=SimpleNamespace(num_available=lambda: len(proxies)),
        history=SimpleNamespace(add_metrics_distributed_fit=lambda **_: None),
    )
    round_state = WorkflowState()
    clients.outside = 0.0
    start = time.thread_time()
    for stage in STAGES:
        if not getattr(workflow, stage)(clients, context, round_state):
            return time.thread_time() - start - clients.outside, None
    seconds = time.thread_time() - start - clients.outside
    return seconds, parameters_to_ndarrays(caught[0][1].parameters) if caught else None


def cost(path: str, *, threshold: int, dropped: int) -> dict[str, float]:
    """Time one round on the vectors in a file, shape ``(n, length)``."""
    updates = list(np.load(path, mmap_mode="r"))
    clients = Clients([np.array(u) for u in updates], num_examples=[1000] * len(updates))
    clients.gone = {Stage.COLLECT_MASKED_VECTORS: set(clients.ids[:dropped])}
    server, mean = play(clients, threshold=threshold)
    truth = np.mean(updates[dropped:], axis=0)
    last = clients.ids[-1]
    return {
        "client_s": min(clients.seconds[i] for i in clients.ids[dropped:]),
        "server_s": server,
        "bytes_up": clients.bytes_up[last],
        "largest_error_of_mean": float(np.abs(mean[0] - truth).max()) if mean is not None else float("nan"),
    }


def drops(stage: str) -> str:
    """F2: six clients, threshold four, one lost."""
    clients = Clients([np.ones(10, np.float32)] * 6, num_examples=[10] * 6)
    clients.gone = {stage: {clients.ids[2]}}
    try:
        return "the mean" if play(clients, threshold=4)[1] is not None else "no mean, and no exception"
    except KeyError as exc:
        return f"KeyError({exc})"


def both_shares() -> int:
    """F3: how many shares of one client the others hand out when it is listed as living and as dead."""
    clients = Clients([np.ones(10, np.float32)] * 5, num_examples=[10] * 5)
    play(clients, threshold=3)
    victim, others, found = clients.ids[0], clients.ids[1:], 0
    for client in others:
        record = clients.contexts[client].state.config_records[RECORD_KEY_STATE]
        record["current_stage"] = Stage.COLLECT_MASKED_VECTORS
        asked = ConfigRecord(
            {
                Key.STAGE: Stage.UNMASK,
                Key.ACTIVE_NODE_ID_LIST: list(clients.ids),
                Key.DEAD_NODE_ID_LIST: [victim],
            }
        )
        message = Message(
            RecordDict({RECORD_KEY_CONFIGS: asked}), dst_node_id=client, message_type="train", group_id="1"
        )
        answer = clients.answer(message)
        found += answer.content.config_records[RECORD_KEY_CONFIGS][Key.NODE_ID_LIST].count(victim)
    return found


def wrong_means() -> dict[str, float]:
    """F5 and F7: largest error of a mean that no exception accompanies."""
    rng = np.random.default_rng(0)
    updates = [rng.normal(scale=0.05, size=1000).astype(np.float32) for _ in range(5)]
    heavy = Clients(updates, num_examples=[200_000] * 5)
    _, mean = play(heavy, threshold=3)
    far = [update.copy() for update in updates]
    far[0][0] = 20.0
    _, clipped = play(Clients(far, num_examples=[1000] * 5), threshold=3)
    return {
        "F5 weight of 200,000": float(np.abs(mean[0] - np.mean(updates, axis=0)).max()),
        "F7 one value of 20": float(np.abs(clipped[0] - np.mean(far, axis=0)).max()),
    }


def free_seed_bits(n_keys: int = 2000) -> int:
    """F1: how many bits of the seed that a pairwise mask rests on ever change, over so many fresh keys."""
    always_set, ever_set = 2**32 - 1, 0
    for _ in range(n_keys):
        (mine, _), (_, theirs) = generate_key_pairs(), generate_key_pairs()
        key = generate_shared_key(mine, theirs)
        folded = 0
        for at in range(0, len(key), 4):
            folded ^= int.from_bytes(key[at : at + 4], "little")
        always_set, ever_set = always_set & folded, ever_set | folded
    return (ever_set & ~always_set).bit_count()


def accepts_a_threshold_of_two_in_ten() -> bool:
    """F9: whether such a workflow can be made."""
    SecAggPlusWorkflow(num_shares=10, reconstruction_threshold=2)
    return True


def defects() -> dict[str, object]:
    """Known defects, reproduced with Flower's own code."""
    return {
        "F1 free bits of a pairwise seed": free_seed_bits(),
        "F9 threshold of 2 in 10 accepted": accepts_a_threshold_of_two_in_ten(),
        "F2 lost in setup": drops(Stage.SETUP),
        "F2 lost while sharing keys": drops(Stage.SHARE_KEYS),
        "F2 lost before masking": drops(Stage.COLLECT_MASKED_VECTORS),
        "F3 shares of one client from four others": both_shares(),
        **wrong_means(),
    }


def main() -> None:
    """Answer one request from the command line as one line of JSON."""
    logging.disable(logging.CRITICAL)
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    request = json.loads(sys.argv[1])
    found = defects() if request.pop("what") == "defects" else cost(**request)
    print(json.dumps({"flwr": version("flwr"), **found}))


if __name__ == "__main__":
    main()
