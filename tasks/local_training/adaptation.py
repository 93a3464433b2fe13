"""Growing a partner's own trunk beside the finished shared one, and keeping the best epoch.

Why: what a partner's chemistry needs beyond the common features stays with it, and it must not lose by it.
Runs: on the partner, in the training child. Source: MELLODDY's local adaptation; docs/decisions/0029.
"""

from collections.abc import Iterator

import numpy as np
import torch

from tasks.evaluation.metrics import selection_value
from tasks.local_training.dataset import PreparedDataset
from tasks.local_training.epochs import Meter, Rows, batches, epochs_of, loss_scale, training_rows, validated
from tasks.local_training.head_files import head_path, read_head, write_arm
from tasks.local_training.jobs import Adapt, CentralisedResult, Epoch
from tasks.local_training.learner import Learner
from tasks.local_training.local_trunk import beside_each_other, widened_head
from tasks.local_training.parameters import Parameters, initial_trunk, read_parameters
from tasks.local_training.place import Place
from tasks.local_training.shared_model import read_places, read_shared, split_shared, with_catalogue


def adapt(job: Adapt, *, place: Place) -> CentralisedResult:
    """Do the job ``Adapt``; raises as ``training.train``."""
    meter = Meter()
    dataset = PreparedDataset.open(job.dataset, modality=job.modality)
    dataset = dataset.balanced(job.settings.regression_weight)
    shared, catalogue = split_shared(read_shared(read_parameters(job.trunk))[0])
    hidden = len(shared["embedding.bias"])
    head = read_head(job.head, dataset, hidden=hidden, modality=job.modality)
    head = widened_head(with_catalogue(head, catalogue, read_places(job.places)), width=job.width)
    own = initial_trunk(job.width, seed=job.seed, n_bits=len(shared["embedding.weight"]))
    rows = training_rows(dataset, job.folds, who=job.dataset.name)
    generator = torch.Generator().manual_seed(job.seed)
    learner = Learner(
        dataset,
        rows,
        trunk=own,
        head=head,
        settings=job.settings,
        generator=generator,
        loss_scale=loss_scale(dataset, rows, settings=job.settings),
        place=place,
        beside=shared,
    )
    best, history = _grow(
        job,
        dataset,
        learner,
        shared=shared,
        own=own,
        epochs=epochs_of(len(rows), job.settings, batches(rows, job.settings, generator)),
    )
    return CentralisedResult(
        kind=job.kind,
        trunk=job.output / "trunk.safetensors",
        heads=(head_path(job.output, 0),),
        best_epoch=best,
        history=history,
        usage=meter.usage(),
    )


def _grow(
    job: Adapt,
    dataset: PreparedDataset,
    learner: Learner,
    *,
    shared: Parameters,
    own: Parameters,
    epochs: Iterator[list[Rows]],
) -> tuple[int, tuple[Epoch, ...]]:
    """Train a partner's own trunk and keep the best epoch; epoch 0 is the model as it came."""
    history: list[Epoch] = []
    best, best_value = 0, -np.inf
    for number in range(job.max_epochs + 1):
        losses = [learner.step(batch)[:2] for batch in (next(epochs) if number else ())]
        loss, weight = np.sum(losses, axis=0) if losses else (0.0, 1.0)
        learner.write_trunk(own)
        wide = beside_each_other(shared, own)
        epoch = validated(job, dataset, learner, trunk=wide, number=number, training_loss=loss / weight)
        history.append(epoch)
        value = selection_value(epoch.validation.model_dump(), job.modality)
        if not number or (value is not None and value > best_value):
            best, best_value = number, -np.inf if value is None else value
            write_arm(job.output, wide, learner.head_arrays(), dataset=dataset)
        elif number - best >= job.patience:
            break
    return best, tuple(history)
