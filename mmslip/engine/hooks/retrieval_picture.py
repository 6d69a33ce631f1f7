"""A picture of what the model finds for a text."""

from collections.abc import Sequence

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from mmslip.datasets.base import load_picture
from mmslip.evaluation.predictions import PredictionKeeper
from mmslip.registry import HOOKS
from mmslip.utils.contact_sheet import Tile, draw_sheet

__all__ = ['RetrievalPictureHook']


@HOOKS.register_module()
class RetrievalPictureHook(Hook):
    """Draw text-to-image retrieval on one evaluation task after every validation.

    Each row is a class name, or a caption, and the images whose embeddings are closest to it, the
    right ones framed in green. The picture goes to the visualiser: a PNG under
    ``vis_data/vis_image`` and the image tab of TensorBoard.

    Args:
        task: The ``task`` whose images are searched.
        num_queries: Rows; texts spread evenly over the task's classes or captioned images.
        topk: Images in a row.
    """

    # After ZeroShotHook.
    priority = 'VERY_LOW'

    def __init__(self, task: str, num_queries: int = 8, topk: int = 8) -> None:
        self.task = task
        self.num_queries = num_queries
        self.topk = topk

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the last validation."""
        self._keeper = PredictionKeeper(runner.val_dataloader.dataset, self.num_queries)
        if self.task not in self._keeper.parts:
            raise ValueError(
                f'RetrievalPictureHook(task={self.task!r}) has no such task among the validation '
                f'sets: {", ".join(self._keeper.parts)}.'
            )

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[DataSample] | None = None,
    ) -> None:
        """Keep what was predicted on the task's images."""
        self._keeper.add([sample for sample in outputs if sample.task == self.task])

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Draw."""
        found = self._keeper.collect()
        if not is_main_process():
            return
        found, part = found[self.task], self._keeper.parts[self.task]
        rows = [
            (
                text,
                [
                    Tile(
                        load_picture(part, int(found.index[row])),
                        frame='tab:green' if found.label[row] == label else None,
                    )
                    for row in found.best(query, self.topk)
                ],
            )
            for query, (text, label) in enumerate(zip(found.texts, found.queries, strict=True))
        ]
        title = f'text-to-image retrieval, {self.task}, epoch {runner.epoch}, step {runner.iter}'
        runner.visualizer.add_image(
            f'retrieval_{self.task}', draw_sheet(rows, title, size=1), runner.iter
        )
