"""The published network as a textbook writes it: what benchmarks/training*.py compare motet with.

Why: goals are ratios, and a ratio needs a fair other side: same data, batches, dropout draws, loss and optimizer.
Runs: imported by the benchmarks. Source: SparseChem (Arany et al.): sparse matrix product (coordinate format), dense head over all
endpoints, binary cross-entropy on the observed cells, ``torch.optim.Adam`` as it comes, scikit-learn per endpoint. Dropout draws motet's
masks, so that the losses can be compared.
"""

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from torch import nn

from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.network import Dropout, dropout_with
from tasks.local_training.parameters import Parameters

Rows = npt.NDArray[np.int64]


class Textbook(nn.Module):
    """Sparse input layer, ReLU, dropout, one linear layer."""

    def __init__(self, trunk: Parameters, head: Parameters, *, dropout: Dropout) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(trunk["embedding.weight"]))
        self.bias = nn.Parameter(torch.tensor(trunk["embedding.bias"]))
        self.dropout = dropout
        n_endpoints, hidden = head["weight"].shape
        self.head = nn.Linear(hidden, n_endpoints)
        self.head.weight.data.copy_(torch.tensor(head["weight"]))
        self.head.bias.data.copy_(torch.tensor(head["bias"]))

    def forward(self, fingerprints: torch.Tensor) -> torch.Tensor:
        """Logits of all endpoints, shape ``(n_molecules, n_endpoints)``."""
        features = torch.relu(torch.mm(fingerprints, self.weight) + self.bias)
        return self.head(self.dropout(features) if self.training else features)


class TextbookTraining:
    """Trains the textbook's network on batches of a data set."""

    def __init__(
        self,
        dataset: PreparedDataset,
        *,
        trunk: Parameters,
        head: Parameters,
        dropout: float,
        learning_rate: float,
        weight_decay: float,
        loss_scale: float,
        seed: int,
    ) -> None:
        self.dataset = dataset
        self.loss_scale = loss_scale
        self.network = Textbook(
            trunk, head, dropout=dropout_with(dropout, torch.Generator().manual_seed(seed))
        )
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        self.weight = torch.from_numpy(dataset.endpoint_weight)

    def step(self, rows: Rows) -> float:
        """One step; the summed loss of the batch before it."""
        labels = self.dataset.labels_of(rows)
        endpoint = torch.from_numpy(labels.endpoint)
        logits = self.network(fingerprint_matrix(self.dataset, rows))
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits[torch.from_numpy(labels.row), endpoint],
            torch.from_numpy(labels.value),
            weight=self.weight[endpoint],
            reduction="sum",
        )
        self.optimizer.zero_grad()
        (loss * self.loss_scale).backward()
        self.optimizer.step()
        return float(loss.detach())


def fingerprint_matrix(dataset: PreparedDataset, rows: Rows) -> torch.Tensor:
    """Fingerprints of a batch as a sparse matrix of ones, in coordinate format."""
    bits, starts = dataset.fingerprints_of(rows)
    molecule = np.repeat(np.arange(len(rows)), np.diff(starts, append=len(bits)))
    index = torch.from_numpy(np.stack([molecule, bits.astype(np.int64)]))
    return torch.sparse_coo_tensor(index, torch.ones(len(bits)), (len(rows), 32_768))


def textbook_metrics(
    endpoint: Rows, label: npt.NDArray[np.integer], probability: npt.NDArray[np.float64], *, n_endpoints: int
) -> npt.NDArray[np.float64]:
    """AUROC, AUPRC and log-loss, one scikit-learn call per endpoint and metric; shape ``(n_endpoints, 3)``."""
    found = np.full((n_endpoints, 3), np.nan)
    for number in range(n_endpoints):
        chosen = endpoint == number
        truth, predicted = label[chosen], probability[chosen]
        if len(np.unique(truth)) == 2:
            found[number, 0] = roc_auc_score(truth, predicted)
            found[number, 1] = average_precision_score(truth, predicted)
        if len(truth):
            found[number, 2] = log_loss(truth, predicted, labels=[0, 1])
    return found
