"""Export both towers to ONNX or to `torch.export`, with a dynamic batch.

    python tools/model_converters/export.py weights/slip/config.py weights/slip exported
    python tools/model_converters/export.py weights/slip/config.py weights/slip exported --to torch

The folder gets `image.onnx` and `text.onnx` (or `.pt2`) and `export.json`, which says how images
and texts are prepared. Embeddings are L2-normalised: their dot product is the cosine similarity. A
model without text tower gives `image` alone, the backbone's features, not normalised.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmslip.apis import init_model
from mmslip.models.necks import pool
from mmslip.models.slip import embedding_of
from mmslip.utils import whole_file

TOLERANCE = 1e-4  # of an exported embedding, anywhere


class Tower(nn.Module):
    """A backbone with its projection: normalised embeddings; or without: its features."""

    def __init__(self, backbone: nn.Module, neck: nn.Module | None, options: dict) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        feats = self.backbone(x, **self.options)
        if self.neck is None:
            return pool(feats)  # (B, C)
        return F.normalize(embedding_of(self.neck(feats)), dim=-1)  # (B, D)


def towers_of(model: nn.Module) -> dict[str, Tower]:
    """The towers of a model, in eval mode."""
    if not getattr(model, 'with_text', False):
        return dict(image=Tower(model.backbone, None, getattr(model, '_whole_image', {})).eval())
    return dict(
        image=Tower(model.backbone, model.neck, model._whole_image).eval(),
        text=Tower(model.text_backbone, model.text_neck, {}).eval(),
    )


def example_inputs(model: nn.Module, size: int, batch: int) -> dict[str, Tensor]:
    """Random inputs of each tower the model has."""
    inputs = dict(image=torch.randn(batch, 3, size, size))
    if getattr(model, 'with_text', False):
        tower = model.text_backbone
        vocab = tower.token_embedding.num_embeddings
        text = torch.randint(1, vocab - 1, (batch, tower.context_length))
        text[torch.arange(batch), torch.randint(1, tower.context_length, (batch,))] = vocab - 1
        inputs['text'] = text
    return inputs


def to_onnx(tower: nn.Module, name: str, example: Tensor, path: Path) -> Callable:
    """Write ONNX; returns what runs it in onnxruntime."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (which torch.onnx needs)
    except ModuleNotFoundError as error:
        raise SystemExit(f'{error}: pip install "mmslip[onnx]"') from error
    program = torch.onnx.export(
        tower,
        (example,),
        input_names=[name],
        output_names=['embed'],
        dynamic_shapes=({0: torch.export.Dim('batch')},),
        dynamo=True,
        verbose=False,
    )
    program.save(path)  # and, above two gigabytes, a file of weights that it names
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def to_torch(tower: nn.Module, name: str, example: Tensor, path: Path) -> Callable:
    """Write a `torch.export` program; returns what runs it after loading."""
    batch = torch.export.Dim('batch')
    program = torch.export.export(tower, (example,), dynamic_shapes=({0: batch},))
    with whole_file(path) as part:
        torch.export.save(program, part)
    return torch.export.load(path).module()


FORMATS = dict(onnx=(to_onnx, '.onnx'), torch=(to_torch, '.pt2'))


def describe(model: nn.Module, size: int, files: dict[str, str]) -> dict:
    """What a program that runs the towers has to know."""
    preprocessor = model.data_preprocessor
    mean, std = (
        [value / 255 for value in getattr(preprocessor, key).flatten().tolist()]
        for key in ('mean', 'std')
    )
    image = dict(
        file=files['image'],
        input=['batch', 3, size, size],
        prepare='RGB; short side resized to the size, bicubic; centre crop; values in [0, 1], '
        'minus mean, divided by std',
        size=size,
        mean=mean,
        std=std,
    )
    if 'text' not in files:
        return dict(image=image, normalised=False)
    length = model.text_backbone.context_length
    text = dict(
        file=files['text'],
        input=['batch', length],
        prepare='int64 ids of the CLIP tokeniser, zeros behind the end-of-text token',
        context_length=length,
    )
    # Logits are scale * cosine similarity, plus the bias of a model of the sigmoid loss.
    score = dict(scale=model.head.logit_scale.exp().item())
    if hasattr(model.head, 'logit_bias'):
        score['bias'] = model.head.logit_bias.item()
    return dict(image=image, text=text, normalised=True, **score)


def export(config: Path, checkpoint: Path, folder: Path, to: str) -> dict[str, float]:
    """Export the towers of a model.

    Args:
        config: Its config.
        checkpoint: Its weights, in any format that mmslip loads.
        folder: Is made where it does not exist.
        to: A key of :data:`FORMATS`.

    Returns:
        By tower, the greatest difference between an embedding before and after.

    Raises:
        SystemExit: It is above :data:`TOLERANCE`, or the config does not tell the pixels' scale.
    """
    model = init_model(config, checkpoint, 'cpu').requires_grad_(False)
    if getattr(model.data_preprocessor, 'mean', None) is None:
        raise SystemExit(f'The model of {config} has no data_preprocessor with mean and std.')
    size = model.backbone.img_size[0] if hasattr(model.backbone, 'img_size') else 224
    folder.mkdir(parents=True, exist_ok=True)
    write, suffix = FORMATS[to]
    towers = towers_of(model)
    # Examples of one size are traced, others checked.
    checked = example_inputs(model, size, batch=5)
    differences = {}
    for name, example in example_inputs(model, size, batch=2).items():
        run = write(towers[name], name, example, folder / f'{name}{suffix}')
        wanted = towers[name](checked[name])
        differences[name] = float((run(checked[name]) - wanted).abs().max())
        if not differences[name] <= TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise SystemExit(f'{folder / name}{suffix} is off by {differences[name]:.1e}.')
    files = {name: f'{name}{suffix}' for name in differences}
    text = json.dumps(describe(model, size, files), indent=2)
    (folder / 'export.json').write_text(text + '\n', encoding='utf-8')
    return differences


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='config of the model')
    parser.add_argument('checkpoint', type=Path, help='its weights: a file or a folder')
    parser.add_argument('folder', type=Path, help='folder to write')
    parser.add_argument('--to', choices=FORMATS, default='onnx', help='default: onnx')
    args = parser.parse_args(arguments)
    for name, difference in export(args.config, args.checkpoint, args.folder, args.to).items():
        suffix = FORMATS[args.to][1]
        print(f'{args.folder / name}{suffix}: embeddings differ by at most {difference:.1e}')
    print(f'{args.folder / "export.json"}: how images and texts are prepared')


if __name__ == '__main__':
    main()
