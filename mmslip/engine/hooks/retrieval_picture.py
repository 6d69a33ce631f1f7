"""A picture of what the model finds for a text."""

from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from mmslip.datasets.base import load_picture
from mmslip.evaluation.predictions import PredictionKeeper, Predictions
from mmslip.registry import HOOKS
from mmslip.utils.contact_sheet import Tile, draw_sheet

__all__ = ['RetrievalPictureHook']


@HOOKS.register_module()
class RetrievalPictureHook(Hook):
    """Draw text-to-image retrieval on one evaluation task after every validation.

    Each row is a class name, or a caption, and the images whose embeddings are closest to it, the
    right ones framed in green. The picture goes to the visualiser, a PNG under
    ``vis_data/vis_image`` and the image tab of TensorBoard, and to ``retrieval_TASK.png`` in the
    work folder, which shows the newest.

    Args:
        task: The ``task`` whose images are searched.
        num_queries: Rows; texts spread evenly over the task's classes or captioned images.
        topk: Images in a row.
        from_start: Validate before the first step, too, and show what was found then beside what
            is found now.
    """

    # After ZeroShotHook.
    priority = 'VERY_LOW'

    def __init__(
        self, task: str, num_queries: int = 8, topk: int = 8, from_start: bool = False
    ) -> None:
        self.task = task
        self.num_queries = num_queries
        self.topk = topk
        self.from_start = from_start
        self.found_at_start: list[list[int]] = []

    def before_train(self, runner: Runner) -> None:
        """Validate the model that knows nothing."""
        if self.from_start and runner.iter == 0 and runner.val_loop is not None:
            runner.val_loop.run()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store what was found at the start, for the run that goes on from here."""
        checkpoint[f'retrieval_{self.task}'] = self.found_at_start

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take it back."""
        self.found_at_start = checkpoint.get(f'retrieval_{self.task}', [])

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
        best = [found.best(query, self.topk) for query in range(len(found.queries))]
        places = [found.index[rows].tolist() for rows in best]
        sheets = []
        if self.from_start:
            if runner.iter == 0:
                self.found_at_start = places
            elif self.found_at_start:
                sheets.append(self._draw(found, part, self.found_at_start, 'before training'))
        now = f'epoch {runner.epoch}, step {runner.iter}'
        sheets.append(self._draw(found, part, places, now))
        picture = np.concatenate(sheets, axis=1)
        runner.visualizer.add_image(f'retrieval_{self.task}', picture, runner.iter)
        path = Path(runner.work_dir, f'retrieval_{self.task}.png')
        mmcv.imwrite(mmcv.rgb2bgr(picture), str(path))

    def _draw(
        self, found: Predictions, part: Dataset, places: list[list[int]], when: str
    ) -> np.ndarray:
        """A sheet with a row of images, given by their places in the task, for every text."""
        label_of = dict(zip(found.index.tolist(), found.label.tolist(), strict=True))
        rows = []
        for text, label, row in zip(found.texts, found.queries, places, strict=True):
            frames = ['tab:green' if label_of[place] == label else None for place in row]
            tiles = [
                Tile(load_picture(part, place), frame=frame)
                for place, frame in zip(row, frames, strict=True)
            ]
            rows.append((text, tiles))
        return draw_sheet(rows, f'text-to-image retrieval, {self.task}, {when}', size=1)
