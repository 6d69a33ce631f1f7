"""A picture of what the model finds for a text."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from mmslip.datasets.base import load_picture
from mmslip.evaluation.predictions import PredictionKeeper
from mmslip.registry import HOOKS

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
                    (load_picture(part, int(found.index[row])), bool(found.label[row] == label))
                    for row in found.best(query, self.topk)
                ],
            )
            for query, (text, label) in enumerate(zip(found.texts, found.queries, strict=True))
        ]
        title = f'text-to-image retrieval, {self.task}, epoch {runner.epoch}, step {runner.iter}'
        runner.visualizer.add_image(f'retrieval_{self.task}', _draw(title, rows), runner.iter)


def _draw(title: str, rows: list[tuple[str, list[tuple[np.ndarray, bool]]]]) -> np.ndarray:
    """Render rows of (text, [(RGB image, is right)]) to an RGB array."""
    columns = len(rows[0][1])
    # Without pyplot: no global state, no display, no open figure left behind.
    figure = Figure(figsize=(2.6 + columns, 0.5 + len(rows)), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    grid = figure.add_gridspec(len(rows), columns + 1, width_ratios=[2.6] + [1] * columns)
    for row, (text, hits) in enumerate(rows):
        label = figure.add_subplot(grid[row, 0])
        label.set_axis_off()
        label.text(1, 0.5, text, ha='right', va='center', wrap=True, fontsize=9)
        for column, (image, right) in enumerate(hits):
            axes = figure.add_subplot(grid[row, column + 1])
            axes.imshow(image)
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(color='tab:green' if right else 'lightgrey', linewidth=3 if right else 1)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
