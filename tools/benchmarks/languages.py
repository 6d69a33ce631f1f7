"""Judge a model of the emoji in each of ten languages, and draw what it finds in several scripts.

Drawings are those of the unseen vendor, names those of Unicode CLDR (EmojiDataset, `languages`):

    python tools/benchmarks/languages.py work_dirs/slip_tiny_emoji_ten-languages \
        --picture docs/retrieval_languages.png --query bear --fonts fonts

The picture has what one name finds in each language. Matplotlib draws all scripts where it finds
their fonts, such as those of Noto: the `.ttf` files in `--fonts`, and those that are installed.
"""

import argparse
from pathlib import Path

import mmcv
import torch
from matplotlib import font_manager
from torch import Tensor

from mmslip.apis import EmbeddingInferencer, init_model
from mmslip.datasets import EmojiDataset
from mmslip.datasets.emoji import read_names
from mmslip.evaluation import embed_texts
from mmslip.utils.contact_sheet import Tile, draw_sheet

TOPK = 6  # drawings in a row of the picture


def ranks_of(scores: Tensor, labels: Tensor) -> Tensor:
    """Names before the right one, of `scores` (N, K) and `labels` (N,); equal scores come first."""
    return (scores >= scores.gather(1, labels[:, None])).sum(dim=1) - 1


def main() -> None:
    """Run the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('run', type=Path, help='folder of a training: its config and checkpoint')
    parser.add_argument('--picture', type=Path, help='file to draw')
    parser.add_argument('--query', default='bear', help='English name of an emoji, for the picture')
    parser.add_argument('--fonts', type=Path, help='folder of fonts')
    args = parser.parse_args()
    (config,) = args.run.glob('*.py')
    checkpoint = args.run / (args.run / 'last_checkpoint').read_text().strip()
    model = EmbeddingInferencer(init_model(config, checkpoint, 'cpu'))
    tasks = {code: EmojiDataset('val', languages=[code], pipeline=[]) for code in read_names()}
    drawings = [tasks['en'][place] for place in range(len(tasks['en']))]
    labels = torch.tensor([drawing['gt_label'] for drawing in drawings])
    images = [drawing['img'] for drawing in drawings]
    batches = model.preprocess(images, batch_size=256)
    feats = torch.stack([feat for batch in batches for feat in model.embed(batch)])  # (N, D)
    rows, english = [], None
    print('| language | top-1 | top-5 | of English |\n| --- | ---: | ---: | ---: |')
    query = tasks['en'].metainfo['classes'].index(args.query)
    for code, task in tasks.items():
        names = task.metainfo['classes']
        scores = feats @ embed_texts(model.model, model.tokenizer(names)).T  # (N, K)
        ranks = ranks_of(scores, labels)
        top1, top5 = (100 * (ranks < k).float().mean().item() for k in (1, 5))
        english = english or top5
        print(f'| {code} | {top1:.1f} | {top5:.1f} | {top5 / english:.0%} |')
        tiles = [
            Tile(mmcv.bgr2rgb(images[found]), frame='tab:green' if labels[found] == query else None)
            for found in scores[:, query].topk(TOPK).indices.tolist()
        ]
        rows.append((f'{names[query]} ({code})', tiles))
    if args.picture:
        for font in sorted(args.fonts.glob('*.ttf')) if args.fonts else []:
            font_manager.fontManager.addfont(font)
        title = 'closest drawings of a vendor that training never saw; the right one framed'
        mmcv.imwrite(mmcv.rgb2bgr(draw_sheet(rows, title, size=1)), str(args.picture))


if __name__ == '__main__':
    main()
