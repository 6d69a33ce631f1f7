"""Draw what the model will see: ``mmslip browse CONFIG``."""

import argparse
import copy
from collections.abc import Sequence
from itertools import islice

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from mmslip.analysis import over_epochs, watch
from mmslip.cli.config import add_config_arguments, apply_checked, read_config
from mmslip.cli.errors import plain_errors
from mmslip.cli.parser import CommandParser, at_least
from mmslip.cli.setting_errors import name_settings
from mmslip.datasets import StreamDataset, collate
from mmslip.datasets.transforms.load_image import LoadImage
from mmslip.registry import MODELS, TOKENIZERS
from mmslip.utils.contact_sheet import Tile, draw_sheet
from mmslip.utils.parts import find_all


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        'browse',
        description='Draw some training samples as stored and as the model sees them: the view of '
        'the language half, those of the self-supervised half, and the caption out of its tokens.',
    )
    add_config_arguments(parser)
    parser.add_argument('--out', default='samples.png', help='picture to write')
    parser.add_argument('--samples', type=at_least(1), default=6, help='number of samples')
    return parser.parse_args(arguments)


def collect(cfg: Config, number: int) -> list[tuple[str, list[Tile]]]:
    """Captions and pictures of the first samples that training will visit."""
    loader_cfg = dict(copy.deepcopy(cfg.train_dataloader), num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(loader_cfg, seed=0)
    stored, items = read(loader, number)
    # Samples with a caption come first in a batch.
    order = sorted(range(len(items)), key=lambda row: 'text' not in items[row]['inputs'])
    stored, items = ([part[row] for row in order] for part in (stored, items))
    # Through the model's own preprocessor, so that a wrong channel order would show.
    preprocessor = MODELS.build(
        cfg.model.get('data_preprocessor') or dict(type='mmslip.SLIPDataPreprocessor')
    )
    inputs = preprocessor(collate(items), training=True)['inputs']
    images = inputs.get('image', [])
    if isinstance(images, Tensor):
        images = [images]
    number = ' {}' if len(images) > 1 else ''
    views = {f'CLIP view{number.format(n)}': view for n, view in enumerate(images, 1)}
    views |= {f'SSL view {n}': view for n, view in enumerate(inputs.get('views', []), 1)}
    tokenizer = next(find_all(cfg.train_dataloader, 'TokenizeCaption'), {}).get('tokenizer')
    tokenizer = TOKENIZERS.build(tokenizer or dict(type='mmslip.CLIPTokenizer'))
    rows = []
    for row, info in enumerate(stored):
        original = mmcv.bgr2rgb(LoadImage()(dict(info))['img'])
        height, width = original.shape[:2]
        pictures = [Tile(original, f'stored, {width} x {height}')]
        pictures += [
            Tile(to_picture(view[row], preprocessor), title)
            for title, view in views.items()
            if row < len(view)
        ]
        texts = inputs.get('text', ())[row : row + 1]  # (1, L) or (1, m, L), or none
        captions = texts.flatten(0, -2) if len(texts) else ()
        rows.append(('\n'.join(map(tokenizer.decode, captions)), pictures))
    return rows


def read(loader: DataLoader, number: int) -> tuple[list[dict], list[dict]]:
    """Samples as they are stored, and what the pipeline makes of them."""
    dataset = loader.dataset
    if isinstance(dataset, StreamDataset):
        stored, items = zip(*over_epochs(watch(dataset), number), strict=True)
        return list(stored), list(items)
    visits = list(islice(loader.sampler, number))
    infos = [dataset.get_data_info(int(visit)) for visit in visits]
    return infos, [dataset[visit] for visit in visits]


def to_picture(view: Tensor, preprocessor: object) -> np.ndarray:
    """Undo the normalisation: float RGB ``(3, H, W)`` to uint8 RGB ``(H, W, 3)``."""
    pixels = view * preprocessor.std + preprocessor.mean
    return pixels.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    cfg = read_config(args.config)
    apply_checked(cfg, args.cfg_options, ['model', 'train_dataloader'])
    with name_settings(cfg):
        sheet = draw_sheet(collect(cfg, args.samples))
    mmcv.imwrite(mmcv.rgb2bgr(sheet), args.out)
    print(f'wrote {args.out}')
