"""SLIP: one image encoder, a language-image loss and a self-supervised loss."""

import inspect
import logging
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmslip.models.chunks import ByteImages, run_in_chunks
from mmslip.models.depth import TOWERS, layers_above, number_of_groups
from mmslip.models.lora import add_lora
from mmslip.models.necks import pool
from mmslip.models.selfsup.shared import SharedBackbone, needs_of, selfsup_loss
from mmslip.models.widths import (
    feature_width,
    image_size_of,
    text_feature_width,
    with_width,
)
from mmslip.registry import MODELS, model_class

__all__ = ['SLIP', 'embedding_of']


@MODELS.register_module()
class SLIP(BaseModel):
    """Self-supervision meets language-image pre-training (Mu et al., arXiv 2112.12750).

    ``loss = loss_clip + ssl_weight * loss_ssl``. Leave out ``ssl`` for CLIP; leave out the text
    tower, both projections and the head for SimCLR or any other self-supervised method alone.

    Widths follow from the towers: ``in_channels`` of the projections and of the method's neck are
    inferred, and compared where they are given.

    Args:
        backbone: Image tower; any mmpretrain backbone. Where it states an ``img_size``, images are
            of that size; self-supervised views may be smaller.
        neck: Image projection into the joint space.
        text_backbone: Text tower.
        text_neck: Text projection into the joint space.
        head: Image-text head, such as :class:`mmslip.models.CLIPHead`.
        ssl: Config of a self-supervised method *without* its backbone: it is built on this
            model's. :class:`mmslip.models.SimCLR`, a method of mmpretrain in the table
            :data:`mmslip.models.selfsup.METHODS`, or one of your own.
        ssl_weight: Weight of the self-supervised loss.
        chunk_size: Run the towers over slices of this many samples, for the gradient of the whole
            batch in the memory of a slice (:func:`mmslip.models.chunks.run_in_chunks`);
            projections, heads and losses run once. By default the batch runs in one piece.
        frozen: Parts that keep their weights and run in evaluation mode, such as ``['backbone']``
            for locked-image tuning (Zhai et al., arXiv 2111.07991).
        unlocked_groups: Of frozen towers, how many groups train all the same, counted from the
            output as open_clip does, such as ``dict(backbone=2)``. The last block and the norm
            behind it are the first group, each further block is one, the embeddings are the last.
            Projections and head are parts of their own, which train unless ``frozen`` names them.
        lora: Settings of :func:`mmslip.models.lora.add_lora` for towers of which nothing but small
            matrices beside their layers is to train, such as ``dict(backbone=dict(r=8))``. They are
            merged wherever weights are read for a model without.
        data_preprocessor: Defaults to :class:`mmslip.models.SLIPDataPreprocessor`.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: The language half is given in part, or no half is given; a width does not fit
            its tower; the method cannot run on the backbone; ``frozen`` names something else than a
            part, or is a text instead of a list; ``unlocked_groups`` names a tower that is not
            frozen, or more groups than it has; ``lora`` names no tower, or a frozen one; or, when
            run, images are of another size.
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
        unlocked_groups: Mapping[str, int] | None = None,
        lora: Mapping[str, dict] | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        language = dict(neck=neck, text_backbone=text_backbone, text_neck=text_neck, head=head)
        missing = [name for name, part in language.items() if part is None]
        if 0 < len(missing) < len(language):
            raise ValueError(
                f'SLIP lacks {", ".join(missing)}: give {", ".join(language)} together, or none of '
                'them for a purely self-supervised model.'
            )
        if missing and ssl is None:
            raise ValueError('SLIP needs the language half, the `ssl` half, or both.')
        super().__init__(data_preprocessor or dict(type='mmslip.SLIPDataPreprocessor'), init_cfg)

        self.backbone = MODELS.build(backbone)
        _warn_of_namesake(self.backbone)
        self.with_text = not missing
        # Backbones of masked image modelling mask by default; the language half sees whole images.
        takes_mask = 'mask' in inspect.signature(self.backbone.forward).parameters
        self.whole_image = dict(mask=None) if takes_mask else {}
        self.image_size = image_size_of(self.backbone, backbone)
        width = feature_width(self.backbone, self.image_size, **self.whole_image)
        self.neck = self.text_backbone = self.text_neck = self.head = None
        if self.with_text:
            self.neck = MODELS.build(with_width(neck, width, 'model.neck'))
            self.text_backbone = MODELS.build(text_backbone)
            text_width = text_feature_width(self.text_backbone)
            self.text_neck = MODELS.build(with_width(text_neck, text_width, 'model.text_neck'))
            self.head = MODELS.build(head)
            # Texts are cut before they are copied to the device, by the rule of their tower.
            self.data_preprocessor.trim_text = self.trim_text
        if chunk_size is not None:
            for tower in filter(None, (self.backbone, self.text_backbone)):
                run_in_chunks(tower, chunk_size)
        for name, settings in (lora or {}).items():
            if name in frozen or getattr(self, name if name in TOWERS else '', None) is None:
                raise ValueError(
                    f'lora names {name!r}, which is no tower of this model ({", ".join(TOWERS)}), '
                    'or one that is frozen: LoRA freezes its tower by itself.'
                )
            add_lora(getattr(self, name), **settings)
        # Behind the slicing, so that momentum copies of the backbone, made in here, slice as well.
        self.ssl = None if ssl is None else self._build_ssl(ssl, width)
        self.ssl_weight = ssl_weight
        if chunk_size is not None:
            reads_pixels = self.ssl is not None and self.ssl_needs.reads_pixels
            self.data_preprocessor.in_slices = ('image',) if reads_pixels else ('image', 'views')
        self.frozen: tuple[str, ...] = ()
        self._freeze(frozen, unlocked_groups or {})

    def _build_ssl(self, cfg: dict, width: int) -> nn.Module:
        """Build the self-supervised method on a reference to this model's backbone."""
        if 'backbone' in cfg:
            raise ValueError(
                '`ssl` must not have a backbone of its own: it shares the one of SLIP.'
            )
        self.ssl_needs = needs_of(model_class(cfg), self.backbone)
        if cfg.get('neck'):
            cfg = {**cfg, 'neck': with_width(cfg['neck'], width, 'model.ssl.neck')}
        return MODELS.build(cfg, default_args=dict(backbone=SharedBackbone(self)))

    def _freeze(self, names: Sequence[str], unlocked: Mapping[str, int]) -> None:
        """Take parts out of training; they stay in evaluation mode by :meth:`train`."""
        parts = dict(self.named_children())
        if isinstance(names, str):
            raise ValueError(f"frozen takes a list, ['{names}'], not the text {names!r}.")
        for name in names:
            if name not in parts:
                raise ValueError(f'frozen names {name!r}, which is none of {", ".join(parts)}.')
        for name, number in unlocked.items():
            _check_unlocked(self, name, number, names)
        for name, param in self.named_parameters():
            part = name.partition('.')[0]
            # Without blocks above it, a parameter belongs to the group of the last block.
            number = unlocked.get(part, 0)
            if part in names and not (number and layers_above(self, name) <= number):
                param.requires_grad_(False)
        self.frozen = tuple(names)
        self.train()

    def train(self, mode: bool = True) -> 'SLIP':
        """Switch to training mode, but for frozen parts and frozen layers of others."""
        super().train(mode)
        for part in (getattr(self, name) for name in self.frozen):
            for module in part.modules():
                params = list(module.parameters())
                if (params or module is part) and not any(param.requires_grad for param in params):
                    module.eval()
        return self

    def encode_image(self, image: Tensor | ByteImages) -> Tensor:
        """Image embeddings ``(B, D)`` of ``(B, 3, H, W)``, not normalised."""
        return embedding_of(self.neck(self.backbone(image, **self.whole_image)))

    def encode_text(self, text: Tensor) -> Tensor:
        """Text embeddings ``(B, D)`` of token ids ``(B, L)``, not normalised."""
        return embedding_of(self.text_neck(self.text_backbone(text)))

    def _encode_texts(self, text: Tensor) -> Tensor:
        """Likewise, of ``(B, L)`` or ``(B, m, L)``: ``(B, D)`` or ``(B, m, D)``."""
        return self.encode_text(text.flatten(0, -2)).unflatten(0, text.shape[:-1])

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

        Of several views for the language half, each is compared with the texts, and the mean
        counts. There may be fewer images and texts than ``views``, of which those without a caption
        belong to the self-supervised half alone (docs/data.md); every process needs as many.

        Returns:
            ``loss_clip``, ``acc_clip`` and ``logit_scale`` with a text tower; ``loss_ssl``
            (weighted) and ``acc_ssl`` (where the algorithm reports it) with an ``ssl`` half.

        Raises:
            KeyError: The batch lacks what a half needs.
        """
        self._check_sizes(inputs)
        losses = {}
        if self.with_text:
            image, text = self._require(inputs, 'image', 'text')  # of the captioned rows
            images = image if isinstance(image, list) else [image]
            image_embeds = [self.encode_image(image) for image in images]  # (B, D) each
            text_embed = self._encode_texts(text)  # (B, D), or (B, m, D) of m captions each
            with_keys = getattr(self.head, 'match_duplicates', False)
            keys = self._require(inputs, 'keys') if with_keys else []  # (B, 1 + m)
            outs = [self.head.loss(embed, text_embed, *keys) for embed in image_embeds]
            for name, key in (('loss_clip', 'loss'), ('acc_clip', 'acc')):
                losses[name] = sum(out[key] for out in outs) / len(outs)
            losses['logit_scale'] = outs[0]['logit_scale']
        if self.ssl is not None:
            self._require(inputs, 'views')
            out = selfsup_loss(self.ssl, self.ssl_needs, inputs)
            for name, value in out.items():
                # loss -> loss_ssl, loss_pred -> loss_ssl_pred, acc -> acc_ssl
                kind, _, rest = name.partition('_')
                weight = self.ssl_weight if 'loss' in name else 1.0
                losses['_'.join(filter(None, (kind, 'ssl', rest)))] = weight * value
        return losses

    def embed(self, inputs: dict) -> dict[str, Tensor]:
        """Embeddings of what the batch holds: ``image_feat`` and ``text_feat``, ``(B, D)`` each.

        Of ``m`` captions of each image, ``text_feat`` is ``(B, m, D)``.
        """
        self._check_sizes(inputs)
        feats = {}
        if 'image' in inputs:
            feats['image_feat'] = self.encode_image(inputs['image'])
        if 'text' in inputs:
            feats['text_feat'] = self._encode_texts(inputs['text'])
        return feats

    def predict(self, inputs: dict, data_samples: list[DataSample]) -> list[DataSample]:
        """Features that :mod:`mmslip.evaluation` judges.

        Args:
            inputs: ``image`` ``(B, 3, H, W)``.
            data_samples: One for each image; ``caption_ids`` ``(n, L)``, where retrieval needs
                them, are its captions.

        Returns:
            The samples with ``backbone_feat`` ``(C,)``, the feature before the projection; and,
            with a text tower, ``image_feat`` ``(D,)``, normalised, and ``text_feat`` ``(n, D)``,
            normalised, of its captions.
        """
        (image,) = self._require(inputs, 'image')
        self._check_sizes(inputs)
        feats = self.backbone(image, **self.whole_image)
        _distribute('backbone_feat', pool(feats).float(), data_samples)
        if not self.with_text:
            return data_samples
        image_feat = F.normalize(embedding_of(self.neck(feats)).float(), dim=-1)  # (B, D)
        _distribute('image_feat', image_feat, data_samples)
        captioned = [sample for sample in data_samples if 'caption_ids' in sample]
        if captioned:
            ids = [sample.caption_ids for sample in captioned]
            text_feat = self.encode_text(self.trim_text(torch.cat(ids)))  # all together, (N, D)
            text_feat = F.normalize(text_feat.float(), dim=-1)
            _distribute('text_feat', text_feat.split([len(rows) for rows in ids]), captioned)
        return data_samples

    def trim_text(self, text: Tensor) -> Tensor:
        """Cut token ids ``(..., L)`` by the rule of the text tower; without one, not at all."""
        trim = getattr(self.text_backbone, 'trim', None)
        return text if trim is None else trim(text.flatten(0, -2)).unflatten(0, text.shape[:-1])

    def _check_sizes(self, inputs: dict) -> None:
        """Refuse images of another size than the backbone's, which it would resize to in silence.

        Self-supervised views may be smaller.
        """
        size = self.image_size
        if size is None:
            return
        views = [tuple(view.shape[-2:]) for view in inputs.get('views', ())]
        wrong = [('views', view) for view in views if max(view) > max(size)]
        images = inputs.get('image', ())
        for image in images if isinstance(images, list | tuple) else [images]:
            wrong.append(('images', tuple(image.shape[-2:])))
        for kind, (height, width) in wrong:
            if (height, width) != size:
                raise ValueError(
                    f'model.backbone.img_size is {size[0]} x {size[1]}, and the pipeline makes '
                    f'{kind} of {height} x {width}: let both agree, by `image_size={size[0]}` or '
                    f'`image_size={height}` in the config. (Self-supervised views may be smaller.)'
                )

    @staticmethod
    def _require(inputs: dict, *names: str) -> list:
        missing = [name for name in names if name not in inputs]
        if missing:
            raise KeyError(
                f'The batch has no {" and no ".join(missing)} (it holds {", ".join(inputs)}): the '
                "model's halves and the pipeline disagree. An `ssl` half needs the views of "
                '`mmslip.SLIPViews` packed by `mmslip.PackSLIPInputs`; a text tower needs an image '
                'and `mmslip.TokenizeCaption`; a head with match_duplicates needs the `keys` that '
                '`mmslip.PackSLIPInputs` adds to them.'
            )
        return [inputs[name] for name in names]


def _warn_of_namesake(backbone: nn.Module) -> None:
    """Say that a prefix is missing where mmslip has a backbone of the same name."""
    ours = MODELS.module_dict.get(type(backbone).__name__)
    if ours is not None and not isinstance(backbone, ours):
        print_log(
            f'model.backbone is the {ours.__name__} of {type(backbone).__module__}, whose shapes '
            f'and initialisation are others: write mmslip.{ours.__name__} for that of SLIP.',
            logger='current',
            level=logging.WARNING,
        )


def _check_unlocked(model: SLIP, name: str, number: int, frozen: Sequence[str]) -> None:
    """Refuse a number of groups that no frozen tower has."""
    if name not in frozen or name not in TOWERS:
        raise ValueError(
            f'unlocked_groups names {name!r}, which is no frozen tower: add it to frozen '
            f'({", ".join(TOWERS)}).'
        )
    most = number_of_groups(model, name)
    if not isinstance(number, int) or not 0 <= number <= most:
        raise ValueError(
            f'unlocked_groups.{name} is {number!r}: the tower has {most} groups, {most - 1} blocks '
            'and the embeddings.'
        )


def embedding_of(projected: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The embedding that a projection returns; necks of mmpretrain return it in a tuple."""
    return projected if isinstance(projected, Tensor) else projected[-1]


def _distribute(name: str, values: Sequence[Tensor], samples: Sequence[DataSample]) -> None:
    for value, sample in zip(values, samples, strict=True):
        sample.set_field(value, name)
