"""Draw what the model will see: ``python tools/analysis/browse_dataset.py CONFIG``."""

import argparse
import copy
from itertools import islice

import mmcv
import numpy as np
from mmengine.config import Config, DictAction
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from torch import Tensor
from torch.utils.data import DataLoader

from mmslip.analysis import find_all, watch
from mmslip.datasets import StreamDataset
from mmslip.datasets.transforms.load_image import LoadImage
from mmslip.registry import MODELS, TOKENIZERS
from mmslip.utils.contact_sheet import Tile, draw_sheet


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Draw some training samples as stored and as the model sees them: the view of '
        'the language half, those of the self-supervised half, and the caption out of its tokens.'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--out', default='samples.png', help='picture to write')
    parser.add_argument('--samples', type=int, default=6, help='number of samples')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='override settings, KEY=VALUE ...'
    )
    return parser.parse_args()


def collect(cfg: Config, number: int) -> list[tuple[str, list[Tile]]]:
    """Captions and pictures of the first samples that training will visit."""
    loader_cfg = dict(copy.deepcopy(cfg.train_dataloader), num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(loader_cfg, seed=0)
    stored, items = read(loader, number)
    # Through the model's own preprocessor, so that a wrong channel order would show.
    preprocessor = MODELS.build(
        cfg.model.get('data_preprocessor') or dict(type='mmslip.SLIPDataPreprocessor')
    )
    inputs = preprocessor(default_collate(items), training=True)['inputs']
    views = {'CLIP view': inputs['image']} if 'image' in inputs else {}
    views |= {f'SSL view {n}': view for n, view in enumerate(inputs.get('views', []), 1)}
    tokenizer = next(find_all(cfg.train_dataloader, 'TokenizeCaption'), {}).get('tokenizer')
    tokenizer = TOKENIZERS.build(tokenizer or dict(type='mmslip.CLIPTokenizer'))
    rows = []
    for row, info in enumerate(stored):
        original = mmcv.bgr2rgb(LoadImage()(dict(info))['img'])
        height, width = original.shape[:2]
        pictures = [Tile(original, f'stored, {width} x {height}')]
        pictures += [
            Tile(to_picture(view[row], preprocessor), title) for title, view in views.items()
        ]
        caption = tokenizer.decode(inputs['text'][row]) if 'text' in inputs else ''
        rows.append((caption, pictures))
    return rows


def read(loader: DataLoader, number: int) -> tuple[list[dict], list[dict]]:
    """Samples as they are stored, and what the pipeline makes of them."""
    dataset = loader.dataset
    if isinstance(dataset, StreamDataset):
        stored, items = zip(*islice(watch(dataset), number), strict=True)
        return list(stored), list(items)
    visits = list(islice(loader.sampler, number))
    infos = [dataset.get_data_info(int(visit)) for visit in visits]
    return infos, [dataset[visit] for visit in visits]


def to_picture(view: Tensor, preprocessor: object) -> np.ndarray:
    """Undo the normalisation: float RGB ``(3, H, W)`` to uint8 RGB ``(H, W, 3)``."""
    pixels = view * preprocessor.std + preprocessor.mean
    return pixels.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    if cfg.get('custom_imports'):
        import_modules_from_strings(**cfg.custom_imports)
    sheet = draw_sheet(collect(cfg, args.samples))
    mmcv.imwrite(mmcv.rgb2bgr(sheet), args.out)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
