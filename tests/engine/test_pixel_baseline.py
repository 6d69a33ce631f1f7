"""The score of comparing pixels, logged beside that of the model."""

import logging
from types import SimpleNamespace

import numpy as np

from mmslip.engine import PixelBaselineHook


class Pictures:
    """Grey pictures of 2 x 2 pixels with a name."""

    def __init__(self, rows: list[list[int]], names: list[str], **metainfo: object) -> None:
        self.rows, self.names, self.metainfo = rows, names, metainfo

    def __len__(self) -> int:
        return len(self.rows)

    def get_data_info(self, index: int) -> dict:
        image = np.array(self.rows[index], np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
        classes = self.metainfo.get('classes', self.names)
        return dict(img=image, text=[self.names[index]], gt_label=classes.index(self.names[index]))


def test_both_scores_stand_in_one_line() -> None:
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.Logger('plain')
    logger.addHandler(handler)
    names = ['a', 'b', 'c', 'd', 'e', 'f']
    train = Pictures(np.eye(6, 4, dtype=int).tolist()[:4], names[:4])
    # The second is most like an "a", and nothing is called an "f".
    val = Pictures(
        [[9, 1, 0, 0], [9, 1, 0, 0], [0, 0, 9, 1], [0, 0, 0, 9]],
        ['a', 'b', 'c', 'f'],
        task='val',
        classes=names,
    )
    runner = SimpleNamespace(
        val_loop=object(),
        train_dataloader=SimpleNamespace(dataset=train),
        val_dataloader=SimpleNamespace(dataset=val),
        logger=logger,
    )
    hook = PixelBaselineHook(side=2)
    hook.before_train(runner)
    hook.after_val_epoch(runner, {'zero_shot/val_top1': 12.34, 'zero_shot/val_top5': 100.0})
    assert lines == [
        'val, top-1 / top-5: model 12.3 / 100.0 %, nearest training image on 2 x 2 pixels '
        '50.0 / 75.0 %'
    ]


def test_nothing_is_computed_without_a_validation() -> None:
    hook = PixelBaselineHook()
    hook.before_train(SimpleNamespace(val_loop=None))
    hook.after_val_epoch(SimpleNamespace(), {})
    assert hook.scores == {}
