"""What half precision and int8 cost: size, cosine and zero-shot accuracy of exported models.

    python tools/benchmarks/precisions.py
    python tools/benchmarks/precisions.py my_slip.py epoch_25.pth

Exports a model in every precision to ONNX and evaluates each on the test data of its config, in
onnxruntime, beside the model in PyTorch. Prints a table in Markdown; "others" are images that get
another class than in PyTorch. The graphs of int8 take their scales from a whole batch.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from mmengine.dataset import default_collate
from mmengine.registry import DATASETS, init_default_scope
from onnxruntime import InferenceSession
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmslip.apis import init_model
from mmslip.apis.base import stated_templates
from mmslip.cli.export import export, tokenizer_of
from mmslip.engine.hooks.zero_shot import tasks_of
from mmslip.evaluation import ClassEmbedder
from mmslip.weights.programs import DTYPES, FILES


class Exported(nn.Module):
    """Stands for a model whose towers are graphs."""

    def __init__(self, model: nn.Module, paths: dict[str, Path]) -> None:
        super().__init__()
        self.model = model
        self.sessions = {name: InferenceSession(path) for name, path in paths.items()}

    def encode_image(self, pixels: Tensor) -> Tensor:
        (found,) = self.sessions['image'].run(None, dict(pixel_values=pixels.numpy()))
        return torch.from_numpy(found)

    def encode_text(self, ids: Tensor) -> Tensor:
        (found,) = self.sessions['text'].run(None, dict(input_ids=ids.numpy()))
        return torch.from_numpy(found)

    def trim_text(self, ids: Tensor) -> Tensor:
        return self.model.trim_text(ids)


def read_tasks(model: nn.Module, batch_size: int) -> dict[str, tuple[list, list, list, Tensor]]:
    """Of each test set its classes, prompts, batches of prepared images and labels."""
    tasks = {}
    dataset = DATASETS.build(model._config.test_dataloader.dataset)
    for name, part in tasks_of(dataset).items():
        loader = DataLoader(part, batch_size, collate_fn=default_collate)
        batches = [model.data_preprocessor(batch, False) for batch in loader]
        labels = [sample.gt_label for batch in batches for sample in batch['data_samples']]
        templates = part.metainfo.get('templates', stated_templates(model._config))
        images = [batch['inputs']['image'] for batch in batches]
        tasks[name] = part.metainfo['classes'], templates, images, torch.cat(labels)
    return tasks


@torch.no_grad()
def evaluate(
    model: nn.Module, embed_classes: ClassEmbedder, tasks: dict
) -> dict[str, tuple[Tensor, Tensor]]:
    """Embeddings of the images and of the classes of each task, normalised."""
    classes = embed_classes(model, {name: parts[:2] for name, parts in tasks.items()})
    return {
        name: (
            torch.cat([F.normalize(model.encode_image(batch), dim=-1) for batch in images]),
            classes[name],
        )
        for name, (_, _, images, _) in tasks.items()
    }


def cosines(found: Tensor, wanted: Tensor) -> str:
    """Mean and minimum."""
    values = F.cosine_similarity(found.double(), wanted.double(), dim=-1)
    return f'{values.mean():.6f} ({values.min():.6f})'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='?', default='slip_tiny_emoji')
    parser.add_argument('weights', nargs='?', default='pretrained')
    parser.add_argument('--batch-size', type=int, default=64)
    args = parser.parse_args()
    init_default_scope('mmpretrain')
    model = init_model(args.config, args.weights, 'cpu')
    embed_classes = ClassEmbedder(tokenizer_of(model))
    tasks = read_tasks(model, args.batch_size)
    wanted = evaluate(model, embed_classes, tasks)

    columns = ['', 'set, images', 'MB', 'cosine of images, mean (least)', 'of class names']
    print(f'| {" | ".join([*columns, "top-1 %", "top-5 %"])} |')
    print('| :-- | :-- | --: | --: | --: | --: | --: |', flush=True)
    with TemporaryDirectory() as folder:
        export(args.weights, Path(folder), config=args.config, dtypes=list(DTYPES))
        for dtype in (None, *DTYPES):
            size, found = '', wanted
            if dtype is not None:
                paths = {
                    name: Path(folder, FILES['onnx'][name].format(DTYPES[dtype]))
                    for name in ('image', 'text')
                }
                size = f'{sum(path.stat().st_size for path in paths.values()) / 1e6:.1f}'
                found = evaluate(Exported(model, paths), embed_classes, tasks)
            for name, (image, classes) in found.items():
                labels = tasks[name][-1]
                ranked = (image @ classes.T).topk(5).indices  # (N, 5)
                before = (wanted[name][0] @ wanted[name][1].T).argmax(dim=-1)
                # Not between classes of one name, which have one embedding.
                answers = (wanted[name][1][rows] for rows in (before, ranked[:, 0]))
                changed = F.cosine_similarity(*answers, dim=-1) < 1 - 1e-6
                hits = (ranked == labels[:, None]).cumsum(dim=-1).float().mean(dim=0)  # (5,)
                cells = [
                    f'ONNX, {dtype}' if dtype else 'PyTorch',
                    f'{name}, {len(labels):,}',
                    size,
                    *map(cosines, (image, classes), wanted[name]),
                    f'{100 * hits[0]:.2f} ({changed.sum()} others)',
                    f'{100 * hits[4]:.2f}',
                ]
                print(f'| {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
