"""The baseline of comparing pixels."""

import numpy as np
import pytest

from mmslip.datasets import EmojiDataset
from mmslip.evaluation import pixel_accuracy


class Pictures:
    """Pictures of one row of pixels each, with captions or labels."""

    def __init__(self, rows: list[list[int]], classes: list[str] | None = None, **fields: list):
        self.rows, self.fields = rows, fields
        self.metainfo = dict(classes=classes)

    def __len__(self) -> int:
        return len(self.rows)

    def get_data_info(self, index: int) -> dict:
        image = np.array(self.rows[index], np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
        return dict(img=image, **{key: values[index] for key, values in self.fields.items()})


def test_ranks_names_by_their_closest_image() -> None:
    train = Pictures(
        [[0, 0, 0, 9], [9, 0, 0, 0], [8, 1, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0], [9, 1, 0, 0]],
        text=['a', ['b', 'first'], 'b', 'c', 'd', None],
    )
    part = Pictures(
        # Contrast does not matter; two images of one name take one place.
        [[0, 0, 0, 90], [90, 8, 0, 3], [90, 8, 0, 3], [90, 8, 0, 3], [9, 0, 0, 0]],
        classes=['a', ['b', 'bee'], 'c', 'never seen'],
        gt_label=[0, 1, 2, 0, 3],
    )
    # The second to fourth picture: b, then c, then a.
    assert pixel_accuracy(train, part, side=2, topk=(1, 2, 3, 9)) == pytest.approx(
        {1: 40, 2: 60, 3: 80, 9: 80}
    )


@pytest.mark.slow
def test_baseline_of_the_main_job() -> None:
    train, val = EmojiDataset('train'), EmojiDataset('val')
    found = pixel_accuracy(train, val)
    assert found == pytest.approx({1: 31.5, 5: 50.8}, abs=0.2)
