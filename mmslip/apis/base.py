"""Base of the inferencers: model, pipeline, and reading that survives broken images."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmpretrain.apis.base import BaseInferencer
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmslip.apis.model import init_model
from mmslip.apis.sources import open_images
from mmslip.datasets import require_fit
from mmslip.evaluation import default_tokenizer, stated_tokenizer
from mmslip.models import SLIP
from mmslip.registry import TOKENIZERS, TRANSFORMS
from mmslip.utils import digest_of
from mmslip.utils.config import image_size_of
from mmslip.utils.parts import find_all
from mmslip.weights.preprocessing import find_test_pipeline

__all__ = [
    'Image',
    'SLIPInferencer',
    'load',
    'progress',
    'read_image',
    'stated_templates',
    'test_pipeline_of',
]

# A file, or BGR uint8 (H, W, 3) as mmcv reads it.
Image = str | Path | np.ndarray


class SLIPInferencer(BaseInferencer):
    """Base of the inferencers, in the manner of mmpretrain's.

    Images go through the test pipeline of the config, the one its evaluation uses; where it has
    none, the short side is resized to the size of the model's images and the centre is cut out. An
    image that cannot be read never stops the others: its result says why.

    Args:
        model: A model, the path of a config file, a config, or a name of
            :func:`mmslip.list_models`.
        pretrained: Checkpoint file; without it the weights are random, or those of a given model.
        device: Defaults to the GPU where there is one.

    Raises:
        FileNotFoundError: There is no such config or checkpoint.
        ValueError: The checkpoint does not fit the model.
    """

    preprocess_kwargs = frozenset({'num_workers'})

    def __init__(
        self,
        model: SLIP | Config | str | Path,
        pretrained: str | Path | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if not isinstance(model, BaseModel):
            model = init_model(model, pretrained, device)
        elif pretrained is not None or not hasattr(model, '_config'):
            raise ValueError('Build the model with mmslip.init_model, which loads its weights.')
        super().__init__(model, pretrained=False, device=device)
        tokenizer = stated_tokenizer(self.config)
        if tokenizer is None and model.with_text:
            tokenizer = default_tokenizer(model.text_backbone)
        self.tokenizer = TOKENIZERS.build(tokenizer) if model.with_text else None
        if model.with_text:
            require_fit(self.tokenizer, model.text_backbone)

    def _init_pipeline(self, cfg: Config) -> Compose:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            return Compose([TRANSFORMS.build(part) for part in test_pipeline_of(cfg)])

    def _inputs_to_list(self, inputs: Image | Sequence[Image]) -> list[Image]:
        """Single images one by one, and folders as the images below them."""
        images = []
        for item in inputs if isinstance(inputs, list | tuple) else [inputs]:
            if isinstance(item, np.ndarray):
                images.append(item)
            else:
                source = open_images(item)
                images += [source.get_data_info(place)['img_path'] for place in range(len(source))]
        return images

    def preprocess(
        self, inputs: Sequence[Any], batch_size: int = 1, num_workers: int = 0
    ) -> Iterator[list[dict | Exception]]:
        """Read images.

        Args:
            inputs: Files, arrays, or the fields of a data set.
            batch_size: Images of one pass.
            num_workers: Processes that read; none reads in this one.

        Yields:
            Lists of packed samples; in the place of an image that cannot be read, the reason.
        """
        yield from load(inputs, partial(read_image, self.pipeline), batch_size, num_workers)

    @torch.no_grad()
    def forward(self, inputs: list[dict | Exception], task: str = '') -> list:
        """Pass a batch through the model.

        Args:
            inputs: A list of :meth:`preprocess`.
            task: Compare with the class embeddings of this name.

        Returns:
            A ``DataSample`` of :meth:`mmslip.models.SLIP.predict` for each image, or the reason.
        """
        readable = [sample for sample in inputs if not isinstance(sample, Exception)]
        found = iter(())
        if readable:
            images = default_collate([dict(inputs=sample['inputs']) for sample in readable])
            images = self.model.data_preprocessor(images, False)['inputs']
            samples = [DataSample(metainfo=dict(task=task)) for _ in readable]
            found = iter(self.model.predict(images, samples))
        return [sample if isinstance(sample, Exception) else next(found) for sample in inputs]

    def embed(
        self, inputs: list[dict | Exception], feature: str | None = None
    ) -> list[Tensor | Exception]:
        """Features of a batch.

        Args:
            inputs: A list of :meth:`preprocess`.
            feature: ``'image_feat'`` (in the joint space of images and texts) or
                ``'backbone_feat'`` (before the projection); the first that the model has.

        Returns:
            For each image ``(D,)``, of unit length, float32, on the CPU; or the reason why not.
        """
        feature = feature or ('image_feat' if self.model.with_text else 'backbone_feat')
        found = self.forward(inputs)
        rows = [row for row, sample in enumerate(found) if not isinstance(sample, Exception)]
        if rows:
            feats = torch.stack([found[row].get(feature) for row in rows])  # (n, D)
            for row, feat in zip(rows, F.normalize(feats.float(), dim=-1).cpu(), strict=True):
                found[row] = feat
        return found

    def visualize(self, inputs: list, preds: list) -> None:
        """Nothing: the command lines draw results, see :mod:`mmslip.cli.inference`."""

    def identity(self) -> str:
        """Digest of all that embeddings of images depend on: weights, pipeline, normalisation."""
        parts = [part for part in (self.model.backbone, self.model.neck) if part is not None]
        digest = digest_of(*parts)
        pixels = self.model.data_preprocessor
        settings = pixels.mean.tolist(), pixels.std.tolist(), pixels.to_rgb
        digest.update(f'{test_pipeline_of(self.config)} {settings}'.encode())
        return digest.hexdigest()

    def require_text(self) -> None:
        """Refuse a model that cannot compare images with words.

        Raises:
            ValueError: It has no text tower.
        """
        if not self.model.with_text:
            raise ValueError(
                'The model has no text tower, so it knows no words: give the config of a SLIP or '
                'CLIP model.'
            )


def load(
    items: Sequence[Any], read: Callable, batch_size: int, num_workers: int
) -> Iterator[list[Any]]:
    """Results of a function of each item, in order and in batches.

    Args:
        items: Its arguments.
        read: The function.
        batch_size: Items of a list.
        num_workers: Processes that run it; none runs it in this one.
    """
    yield from DataLoader(
        _Mapped(items, read), batch_size, num_workers=num_workers, collate_fn=list
    )


def read_image(pipeline: Compose, item: Image | dict) -> dict | Exception:
    """A packed sample, or the reason why there is none."""
    if isinstance(item, np.ndarray):
        item = dict(img=item)
    elif not isinstance(item, dict):
        item = dict(img_path=str(item))
    try:
        return pipeline(item)
    except Exception as error:  # a file can break any transform, and must not end the others
        return error


def progress() -> Progress:
    """A bar with counts and the time left, beside whatever goes to the standard output."""
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))


class _Mapped(Dataset):
    """A data set of the results of a function, one for each item."""

    def __init__(self, items: Sequence[Any], function: Callable) -> None:
        self.items = items
        self.function = function

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Any:
        return self.function(self.items[place])


def test_pipeline_of(cfg: Config) -> list[dict]:
    """Transforms of an image: those of the config's evaluation, without what reads captions.

    Raises:
        ValueError: It has none, and no setting says what size the images have.
    """
    found = find_test_pipeline(cfg.to_dict())
    if found is None:
        # As in the zero-shot evaluation of the paper.
        size = image_size_of(cfg)
        if size is None:
            raise ValueError(
                f'{cfg.filename or "The config"} has no test pipeline and states no size of '
                'images: write `image_size = N` into it.'
            )
        found = [
            dict(type='mmslip.ResizeCenterCrop', size=size),
            dict(type='mmslip.PackSLIPInputs'),
        ]
    left_out = ('LoadImage', 'LoadImageFromFile', 'TokenizeCaption', 'TokenizeCaptions')
    kept = [dict(part) for part in found if part['type'].rpartition('.')[2] not in left_out]
    return [dict(type='mmslip.LoadImage'), *kept]


def stated_templates(cfg: Config) -> list[str]:
    """The prompts that the config evaluates with, or CLIP's first."""
    parts = (part.get('templates') for part in _parts(cfg, 'ZeroShotHook'))
    return list(next(filter(None, parts), ['a photo of a {}.']))


def _parts(cfg: Config, kind: str) -> Iterator[dict]:
    return find_all(cfg.to_dict(), kind)
