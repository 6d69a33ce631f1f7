"""SLIP: one image encoder, a language-image loss and a self-supervised loss."""

import inspect
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmpretrain.models import MAE
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmslip.models.backbones import trim_text
from mmslip.models.chunks import run_in_chunks
from mmslip.models.necks import pool
from mmslip.registry import MODELS

__all__ = ['SLIP', 'embedding_of']


@MODELS.register_module()
class SLIP(BaseModel):
    """Self-supervision meets language-image pre-training (Mu et al., arXiv 2112.12750).

    ``loss = loss_clip + ssl_weight * loss_ssl``. Leave out ``ssl`` for CLIP; leave out the text
    tower, both projections and the head for SimCLR or any other self-supervised method alone.

    Args:
        backbone: Image tower; any mmpretrain backbone.
        neck: Image projection into the joint space.
        text_backbone: Text tower.
        text_neck: Text projection into the joint space.
        head: Image-text head, such as :class:`mmslip.models.CLIPHead`.
        ssl: Config of a self-supervised algorithm *without* its backbone: it is built on this
            model's. :class:`mmslip.models.SimCLR` or any algorithm of mmpretrain whose ``loss``
            takes the views.
        ssl_weight: Weight of the self-supervised loss.
        chunk_size: Run the towers over slices of this many samples, for the gradient of the whole
            batch in the memory of a slice (:func:`mmslip.models.chunks.run_in_chunks`);
            projections, heads and losses run once. By default the batch runs in one piece.
        frozen: Parts that keep their weights and run in evaluation mode, such as ``['backbone']``
            for locked-image tuning (Zhai et al., arXiv 2111.07991).
        data_preprocessor: Defaults to :class:`mmslip.models.SLIPDataPreprocessor`.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: The language half is given in part, or no half is given; or ``frozen`` names
            something else than a part, or is a text instead of a list.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        text_backbone: dict | None = None,
        text_neck: dict | None = None,
        head: dict | None = None,
        ssl: dict | None = None,
        ssl_weight: float = 1.0,
        chunk_size: int | None = None,
        frozen: Sequence[str] = (),
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        data_preprocessor = data_preprocessor or dict(type='mmslip.SLIPDataPreprocessor')
        super().__init__(MODELS.build(data_preprocessor), init_cfg)
        language = dict(neck=neck, text_backbone=text_backbone, text_neck=text_neck, head=head)
        missing = [name for name, part in language.items() if part is None]
        if 0 < len(missing) < len(language):
            raise ValueError(
                f'SLIP lacks {", ".join(missing)}: give {", ".join(language)} together, or none of '
                'them for a purely self-supervised model.'
            )
        if missing and ssl is None:
            raise ValueError('SLIP needs the language half, the `ssl` half, or both.')

        self.backbone = MODELS.build(backbone)
        self.with_text = not missing
        for name, part in language.items():
            setattr(self, name, None if part is None else MODELS.build(part))
        # Backbones of masked image modelling mask by default; the language half sees whole images.
        takes_mask = 'mask' in inspect.signature(self.backbone.forward).parameters
        self._whole_image = dict(mask=None) if takes_mask else {}
        if chunk_size is not None:
            for tower in filter(None, (self.backbone, self.text_backbone)):
                run_in_chunks(tower, chunk_size)
        # Behind the slicing, so that momentum copies of the backbone, made in here, slice as well.
        self.ssl = None if ssl is None else self._build_ssl(ssl)
        self.ssl_weight = ssl_weight
        self.frozen = self._freeze(frozen)
        # Class embeddings by task, set by ZeroShotHook for `predict`; no part of the state dict.
        self.class_embeddings: dict[str, Tensor] = {}

    def _build_ssl(self, cfg: dict) -> nn.Module:
        """Build the self-supervised algorithm around this model's backbone."""
        if 'backbone' in cfg:
            raise ValueError(
                '`ssl` must not have a backbone of its own: it shares the one of SLIP.'
            )
        ssl = MODELS.build(cfg, default_args=dict(backbone=self.backbone))
        # Keep the algorithm's reference but not its registration: registered twice, the backbone's
        # parameters would stand twice in the state dict.
        del ssl._modules['backbone']
        object.__setattr__(ssl, 'backbone', self.backbone)
        if isinstance(ssl, MAE) and not self._whole_image:
            raise ValueError(
                f'{type(ssl).__name__} needs a backbone that masks patches and says which, such as '
                f'MAEViT; {type(self.backbone).__name__} cannot: take that, or an algorithm of two '
                'views.'
            )
        return ssl

    def _freeze(self, names: Sequence[str]) -> tuple[str, ...]:
        """Take parts out of training; they stay in evaluation mode by :meth:`train`."""
        parts = dict(self.named_children())
        if isinstance(names, str):
            raise ValueError(f"frozen takes a list, ['{names}'], not the text {names!r}.")
        for name in names:
            if name not in parts:
                raise ValueError(f'frozen names {name!r}, which is none of {", ".join(parts)}.')
            parts[name].requires_grad_(False).eval()
        return tuple(names)

    def train(self, mode: bool = True) -> 'SLIP':
        """Switch to training mode, but for frozen parts."""
        super().train(mode)
        for name in self.frozen:
            getattr(self, name).eval()
        return self

    def encode_image(self, image: Tensor) -> Tensor:
        """Image embeddings ``(B, D)`` of ``(B, 3, H, W)``, not normalised."""
        return embedding_of(self.neck(self.backbone(image, **self._whole_image)))

    def encode_text(self, text: Tensor) -> Tensor:
        """Text embeddings ``(B, D)`` of token ids ``(B, L)``, not normalised."""
        return embedding_of(self.text_neck(self.text_backbone(text)))

    def forward(
        self, inputs: dict, data_samples: list[DataSample] | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | list[DataSample]:
        """Entry of mmengine.

        Args:
            inputs: Batch of :class:`mmslip.models.SLIPDataPreprocessor`.
            data_samples: Labels and task of each image, for evaluation.
            mode: ``'loss'``, ``'predict'`` or ``'tensor'``.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.embed(inputs)
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', not {mode!r}.")

    def loss(self, inputs: dict, data_samples: list | None = None) -> dict[str, Tensor]:
        """Losses of one training step; mmengine adds up every key that contains ``loss``.

        Returns:
            ``loss_clip``, ``acc_clip`` and ``logit_scale`` with a text tower; ``loss_ssl``
            (weighted) and ``acc_ssl`` (where the algorithm reports it) with an ``ssl`` half.

        Raises:
            KeyError: The batch lacks what a half needs.
        """
        losses = {}
        if self.with_text:
            image, text = self._require(inputs, 'image', 'text')
            out = self.head.loss(self.encode_image(image), self.encode_text(text))
            losses.update(loss_clip=out['loss'], acc_clip=out['acc'])
            losses['logit_scale'] = out['logit_scale']
        if self.ssl is not None:
            (views,) = self._require(inputs, 'views')
            if isinstance(self.ssl, MAE) and len(views) > 1:
                raise ValueError(
                    f'{type(self.ssl).__name__} takes one view, not {len(views)}: set '
                    '`num_views=[1, 1]` of MultiView and `ssl_views=1` of PackSLIPInputs.'
                )
            out = self.ssl.loss(views if len(views) > 1 else views[0], data_samples)
            for name, value in out.items():
                # loss -> loss_ssl, loss_pred -> loss_ssl_pred, acc -> acc_ssl
                kind, _, rest = name.partition('_')
                weight = self.ssl_weight if 'loss' in name else 1.0
                losses['_'.join(filter(None, (kind, 'ssl', rest)))] = weight * value
        return losses

    def embed(self, inputs: dict) -> dict[str, Tensor]:
        """Embeddings of what the batch holds: ``image_feat`` and ``text_feat``, ``(B, D)`` each."""
        feats = {}
        if 'image' in inputs:
            feats['image_feat'] = self.encode_image(inputs['image'])
        if 'text' in inputs:
            feats['text_feat'] = self.encode_text(inputs['text'])
        return feats

    def predict(self, inputs: dict, data_samples: list[DataSample]) -> list[DataSample]:
        """Features and scores that :mod:`mmslip.evaluation` judges.

        Args:
            inputs: ``image`` ``(B, 3, H, W)``.
            data_samples: One for each image. ``task`` names its evaluation set; ``caption_ids``
                ``(n, L)``, where retrieval needs them, are its captions.

        Returns:
            The samples with ``backbone_feat`` ``(C,)``, what lies before the projection; and, with
            a text tower, ``image_feat`` ``(D,)``, normalised, ``pred_score`` ``(classes,)``, the
            cosine similarity to each class of its task, and ``text_feat`` ``(n, D)``, normalised,
            of its captions.
        """
        (image,) = self._require(inputs, 'image')
        feats = self.backbone(image, **self._whole_image)
        _distribute('backbone_feat', pool(feats).float(), data_samples)
        if not self.with_text:
            return data_samples
        image_feat = F.normalize(embedding_of(self.neck(feats)).float(), dim=-1)  # (B, D)
        _distribute('image_feat', image_feat, data_samples)
        for task, classes in self.class_embeddings.items():
            judged = [sample for sample in data_samples if _is_judged(sample, task)]
            if judged:
                feat = torch.stack([sample.image_feat for sample in judged])
                _distribute('pred_score', feat @ classes.T, judged)  # (b, D) x (D, classes)
        captioned = [sample for sample in data_samples if 'caption_ids' in sample]
        if captioned:
            ids = [sample.caption_ids for sample in captioned]
            text_feat = self.encode_text(trim_text(torch.cat(ids)))  # all n together, (N, D)
            text_feat = F.normalize(text_feat.float(), dim=-1)
            _distribute('text_feat', text_feat.split([len(rows) for rows in ids]), captioned)
        return data_samples

    @staticmethod
    def _require(inputs: dict, *names: str) -> list:
        missing = [name for name in names if name not in inputs]
        if missing:
            raise KeyError(
                f'The batch has no {" and no ".join(missing)} (it holds {", ".join(inputs)}): the '
                "model's halves and the pipeline disagree. An `ssl` half needs the views of "
                '`MultiView` packed by `mmslip.PackSLIPInputs`; a text tower needs an image and '
                '`mmslip.TokenizeCaption`.'
            )
        return [inputs[name] for name in names]


def embedding_of(projected: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a projection returns; necks of mmpretrain return it in a tuple."""
    return projected if isinstance(projected, Tensor) else projected[-1]


def _is_judged(sample: DataSample, task: str) -> bool:
    """Whether a sample is judged in ``task``, rather than learnt from or part of another."""
    return sample.get('task') == task and sample.get('role', 'query') == 'query'


def _distribute(name: str, values: Sequence[Tensor], samples: Sequence[DataSample]) -> None:
    for value, sample in zip(values, samples, strict=True):
        sample.set_field(value, name)
