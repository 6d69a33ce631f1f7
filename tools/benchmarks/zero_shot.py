"""Time of zero-shot evaluation against the loop of the official code, in one run.

``python tools/benchmarks/zero_shot.py --images FOLDER`` compares, alternately and on one thread,
the text features of a part of the 26 tasks and the scores of photographs of several sets, and
checks that both ways agree. Weights are random: they do not change the time.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import init_default_scope
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms as tv

import mmslip.datasets  # noqa: F401  (registers the transforms)
from mmslip.datasets import CLIPTokenizer
from mmslip.datasets.tasks import list_tasks, load_task
from mmslip.evaluation import ClassEmbedder, score_classes
from mmslip.evaluation.class_embeddings import prompts_of
from mmslip.registry import MODELS

ROOT = Path(__file__).parents[2]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--images', type=Path, required=True, help='folder of JPEG photographs')
    parser.add_argument('--model', default=ROOT / 'configs' / 'slip' / 'slip_vit-s16_yfcc15m.py')
    parser.add_argument('--share', type=float, default=0.01, help='part of the classes of a task')
    parser.add_argument('--sets', type=int, default=3, help='image sets')
    parser.add_argument('--number', type=int, default=20, help='images of each')
    parser.add_argument('--repeats', type=int, default=3)
    return parser.parse_args()


def official_text(model: nn.Module, tasks: dict, tokenizer: CLIPTokenizer) -> dict[str, Tensor]:
    """Class by class, all prompts at the full context length."""
    embeddings = {}
    for task, (classes, templates) in tasks.items():
        rows = []
        for prompts in prompts_of(classes, templates):
            feats = F.normalize(model.encode_text(tokenizer(prompts)), dim=-1)
            rows.append(F.normalize(feats.mean(dim=0), dim=-1))
        embeddings[task] = torch.stack(rows)
    return embeddings


def official_images(
    model: nn.Module, sets: dict[str, Sequence[Path]], classes: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Set by set, each with a loader of its own, on Pillow and torchvision."""
    normalise = tv.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    view = tv.Compose([tv.Resize(224), tv.CenterCrop(224), tv.ToTensor(), normalise])
    scores = {}
    for task, paths in sets.items():
        images = _Mapped(paths, lambda path: view(Image.open(path).convert('RGB')))
        feats = [model.encode_image(batch) for batch in DataLoader(images, batch_size=32)]
        scores[task] = F.normalize(torch.cat(feats), dim=-1) @ classes[task].T
    return scores


def our_images(
    model: nn.Module, sets: dict[str, Sequence[Path]], classes: dict[str, Tensor]
) -> dict[str, Tensor]:
    """All sets in one pass of a loader, through the pipeline of the config of the 26 sets."""
    config = Config.fromfile(ROOT / 'configs' / 'benchmarks' / 'zero_shot' / 'zero_shot_26.py')
    pipeline = Compose(config.test_dataloader.dataset.pipeline)
    items = [
        dict(img_path=str(path), task=task, gt_label=0) for task in sets for path in sets[task]
    ]
    loader = DataLoader(
        _Mapped(items, lambda item: pipeline(dict(item))), batch_size=32, collate_fn=default_collate
    )
    samples = [sample for batch in loader for sample in model.test_step(batch)]
    score_classes(samples, classes)
    return {
        task: torch.stack([sample.pred_score for sample in samples if sample.task == task])
        for task in sets
    }


class _Mapped(torch.utils.data.Dataset):
    def __init__(self, items: Sequence, function: Callable) -> None:
        self.items, self.function = items, function

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.function(self.items[index])


def compare(
    title: str, official: Callable, ours: Callable, repeats: int, table: Table
) -> list[dict[str, Tensor]]:
    """Run both in turn and add a row of processor times and the ratios within each repeat."""
    times = np.zeros((repeats, 2))
    results = [{}, {}]
    for repeat in range(repeats):
        for way, function in enumerate((official, ours)):
            begin = time.process_time()
            results[way] = function()
            times[repeat, way] = time.process_time() - begin
    ratios = times[:, 0] / times[:, 1]
    low, high = ratios.min(), ratios.max()
    table.add_row(
        title,
        *(f'{value:.2f}' for value in np.median(times, axis=0)),
        f'{np.median(ratios):.2f} ({low:.2f} to {high:.2f})',
    )
    return results


@torch.no_grad()
def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    torch.manual_seed(0)
    init_default_scope('mmpretrain')
    model_cfg = Config.fromfile(args.model).model
    model_cfg.ssl = None
    model = MODELS.build(model_cfg)
    model.init_weights()
    model.eval()
    tokenizer = CLIPTokenizer()
    rng = np.random.default_rng(0)
    tasks = {}
    for name in list_tasks():
        task = load_task(name)
        count = max(round(args.share * len(task.classes)), 1)
        chosen = sorted(rng.choice(len(task.classes), count, replace=False))
        tasks[name] = ([task.classes[index] for index in chosen], task.templates)
    photographs = sorted(args.images.glob('*.jpg'))
    if not photographs:
        raise SystemExit(f'There is no .jpg in {args.images}.')
    endless = cycle(photographs)
    sets = {name: list(islice(endless, args.number)) for name in list_tasks()[: args.sets]}

    prompts = sum(len(row) for parts in tasks.values() for row in prompts_of(*parts))
    table = Table(title=f'{Path(args.model).stem}, one thread, {args.repeats} repeats')
    for column in ('', 'official (CPU s)', 'mmslip (CPU s)', 'official / mmslip'):
        table.add_column(column, justify='left' if not column else 'right')
    theirs, classes = compare(
        f'{prompts} prompts',
        lambda: official_text(model, tasks, tokenizer),
        lambda: ClassEmbedder(tokenizer)(model, tasks),
        args.repeats,
        table,
    )
    worst = max((theirs[task] - classes[task]).abs().max().item() for task in tasks)
    theirs, ours = compare(
        f'{args.sets * args.number} images',
        lambda: official_images(model, sets, classes),
        lambda: our_images(model, sets, classes),
        args.repeats,
        table,
    )
    apart = max((theirs[task] - ours[task]).abs().max().item() for task in sets)
    console = Console()
    console.print(table)
    console.print(f'Largest difference: class embeddings {worst:.1e}, image scores {apart:.1e}.')


if __name__ == '__main__':
    main()
