"""A validation by several processes judges the checkpoint, without synchronised batch norm."""

import os
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

import mmslip.engine  # noqa: F401  (registers the hook)
from tests.distributed.pool import run


class Normed(BaseModel):
    """Predicts its normalised input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, inputs: Tensor, mode: str) -> dict[str, Tensor] | list[list[float]]:
        out = self.norm(inputs)
        return out.tolist() if mode == 'predict' else dict(loss=out.square().mean())


class Keep(BaseMetric):
    """Its figure is the sum of the predictions; all are kept in ``last``."""

    def process(self, data_batch: object, data_samples: list) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        self.last = results
        return dict(total=sum(map(sum, results)))


def loader(samples: list[dict], batch: int) -> dict:
    sampler = dict(type='DefaultSampler', shuffle=False)
    collate = dict(type='default_collate')
    return dict(dataset=samples, batch_size=batch, sampler=sampler, collate_fn=collate)


def train(
    rank: int, world_size: int, folder: str, hooks: list[dict]
) -> tuple[list[list[float]], list[list[float]]]:
    """What was predicted in the validation, and what the checkpoint predicts."""
    os.environ['LOCAL_RANK'] = str(rank)
    torch.manual_seed(0)
    metric, samples = Keep(), [dict(inputs=value) for value in 9 * torch.randn(16, 2)]
    runner = Runner(
        Normed(),
        folder,
        train_dataloader=loader(samples, 2),
        val_dataloader=loader(samples[:6], 1),
        val_evaluator=[metric],
        val_cfg=dict(),
        train_cfg=dict(by_epoch=False, max_iters=3, val_interval=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3)),
        custom_hooks=hooks,
        cfg=dict(
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
            )
        ),
        launcher='pytorch',
        log_level='ERROR',
        experiment_name=f'run-{uuid.uuid4()}',
    )
    runner.train()
    if rank:
        return [], []
    model = Normed().eval()
    model.load_state_dict(torch.load(Path(folder, 'iter_3.pth'), weights_only=False)['state_dict'])
    whole = torch.stack([sample['inputs'] for sample in samples[:6]])
    return metric.last, model(whole, mode='predict')


@pytest.mark.dist
@pytest.mark.parametrize('hooks', [[], [dict(type='mmslip.SharedBuffersHook')]])
def test_all_processes_validate_by_the_checkpoint(tmp_path: Path, hooks: list[dict]) -> None:
    (validated, checkpoint), _ = run(train, 2, str(tmp_path), hooks)
    assert validated[::2] == checkpoint[::2]  # those of the first process
    assert (validated == checkpoint) is bool(hooks)
