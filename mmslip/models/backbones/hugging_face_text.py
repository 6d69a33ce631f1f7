"""Text towers of Hugging Face's transformers."""

import inspect
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmslip.models.backbones.text_pooling import (
    POOLINGS,
    caption_lengths,
    pool_tokens,
    trim_padding,
)
from mmslip.registry import MODELS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ['HuggingFaceText']


@MODELS.register_module()
class HuggingFaceText(BaseModule):
    """Any text model of transformers: BERT, XLM-R, ModernBERT, GPT-2, the encoder of T5, ...

    ``pip install 'mmslip[text]'`` brings the library. Nothing is fetched: models come from a folder
    or from a config. A pooler on top of a model is left out, since ``pooling`` stands in its place.

    Args:
        folder: A folder with ``config.json`` and weights, as ``save_pretrained`` writes it.
        config: Instead, a ``model_type`` and the arguments of its config, such as
            ``dict(model_type='bert', hidden_size=384)``, for random weights.
        pooling: Which feature is that of a caption, see
            :func:`mmslip.models.backbones.text_pooling.pool_tokens`: ``'mean'``; ``'cls'``, for
            BERT and its like; ``'last'`` or ``'eos'``, for GPT and its like.
        pad_id: Id of the padding, which is masked; by default that of the model's config.
        end_id: Id of the end token, for ``'eos'``; by default that of the model's config.
        init_cfg: mmengine's initialisation config, in place of the weights of the folder.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: There is no such folder.
        ValueError: Both or none of ``folder`` and ``config`` are given, or they describe no text
            model; ``pooling`` is none of these, or needs an id that the model's config does not
            say; or, when initialised, the folder lacks weights of the model.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        config: dict[str, Any] | None = None,
        pooling: Literal['cls', 'eos', 'last', 'mean'] = 'mean',
        pad_id: int | None = None,
        end_id: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if pooling not in POOLINGS:
            raise ValueError(f'pooling is {pooling!r}, which is none of {", ".join(POOLINGS)}.')
        self.folder, self.pooling = folder, pooling
        transformers = _import()
        self.settings = settings = _read_config(folder, config)
        # Of a model that has a pooler on top: leave it out, nothing would train it.
        takes = inspect.signature(transformers.MODEL_MAPPING[type(settings)]).parameters
        self._options = dict(add_pooling_layer=False) if 'add_pooling_layer' in takes else {}
        model = transformers.AutoModel.from_config(settings, **self._options)
        # In full precision, whichever type the config names.
        self.transformer = _encoder_of(model).to(torch.get_default_dtype())
        self.vocab_size, self.width = settings.vocab_size, settings.hidden_size
        self.context_length = _count_positions(self.transformer)
        self.pad_id = _id('pad', pad_id, settings)
        self.end_id = _id('end', end_id, settings) if pooling == 'eos' else None

    def init_weights(self) -> None:
        """Load the weights of the folder; those of a config were drawn when the model was built."""
        if self.init_cfg:
            super().init_weights()
        elif self.folder is not None and not self.is_init:
            self._load()
        self._is_init = True

    def _load(self) -> None:
        model, report = _import().AutoModel.from_pretrained(
            self.folder, local_files_only=True, output_loading_info=True, **self._options
        )
        if report['missing_keys']:
            raise ValueError(
                f'{self.folder} lacks weights of its model, such as '
                f'{", ".join(sorted(report["missing_keys"])[:3])}: give a whole one, or `config` '
                'for random weights.'
            )
        # Copied, so that the type stays, whichever the file has.
        self.transformer.load_state_dict(_encoder_of(model).state_dict())

    def plain_config(self) -> dict[str, Any]:
        """The config of such a tower without the folder, for weights that are kept elsewhere."""
        config = {**self.settings.to_diff_dict(), 'model_type': self.settings.model_type}
        config.pop('transformers_version', None)
        cfg = dict(type='mmslip.HuggingFaceText', config=config, pooling=self.pooling)
        ids = dict(pad_id=self.pad_id, end_id=self.end_id)
        return {**cfg, **{name: index for name, index in ids.items() if index is not None}}

    def trim(self, text: Tensor) -> Tensor:
        """Cut token ids ``(B, L)`` to the longest caption.

        Exact: what is cut is masked. The length is read on the host, so trim before copying to a
        device.
        """
        return trim_padding(text, self.pad_id)

    def get_blocks(self) -> nn.ModuleList:
        """The blocks, for recomputation, compilation and sharding."""
        return self.transformer.get_submodule(self._block_list())

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, and the number of depths, as mmpretrain's backbones count them.

        What stands in front of the blocks has depth 0, block ``i`` has ``i + 1``, and what stands
        behind them the largest.
        """
        number, blocks = len(self.get_blocks()) + 2, f'transformer.{self._block_list()}.'
        name = param_name.removeprefix(prefix)
        if name.startswith(blocks):
            return int(name.removeprefix(blocks).partition('.')[0]) + 1, number
        names = [name for name, _ in self.named_parameters()]
        first = next(place for place, other in enumerate(names) if other.startswith(blocks))
        return (0 if names.index(name) < first else number - 1), number

    def _block_list(self) -> str:
        """Name of the list of blocks within the transformer: that of most parameters."""
        sizes = {
            name: sum(param.numel() for param in part.parameters())
            for name, part in self.transformer.named_modules()
            if isinstance(part, nn.ModuleList)
        }
        return max(sizes, key=sizes.get)

    def forward(self, text: Tensor) -> tuple[Tensor]:
        """Encode captions.

        Args:
            text: Token ids ``(B, L)``, ``L <= context_length``, ``pad_id`` behind their end.

        Returns:
            One-tuple of the features ``(B, C)``.
        """
        lengths = caption_lengths(text, self.pad_id)  # (B,)
        mask = torch.arange(text.shape[1], device=text.device) < lengths.unsqueeze(1)  # (B, L)
        out = self.transformer(input_ids=text, attention_mask=mask.long())
        x = out.last_hidden_state  # (B, L, C)
        return (pool_tokens(x, text, lengths, self.pooling, self.end_id),)  # (B, C)


def _import() -> ModuleType:
    try:
        import transformers  # takes seconds, and only these towers need it
    except ImportError as error:
        raise ImportError(
            "mmslip.HuggingFaceText needs transformers: pip install 'mmslip[text]'"
        ) from error
    return transformers


def _read_config(folder: str | Path | None, config: dict[str, Any] | None) -> 'PretrainedConfig':
    """The config of a model, with the sizes that a text model has."""
    if (folder is None) == (config is None):
        raise ValueError('HuggingFaceText takes a folder or a config, one of them.')
    if folder is None and 'model_type' not in config:
        raise ValueError("config lacks the model_type of transformers, such as 'bert'.")
    if folder is not None and not (Path(folder) / 'config.json').is_file():
        raise FileNotFoundError(
            f'There is no config.json in {folder}: give `folder` what '
            'AutoModel.from_pretrained(NAME).save_pretrained(FOLDER) writes.'
        )
    auto = _import().AutoConfig
    if folder is None:
        settings = auto.for_model(**config)
    else:
        settings = auto.from_pretrained(folder, local_files_only=True)
    # The cache of a generating model would grow when a block is run again for its gradient.
    settings.use_cache = False
    sizes = [getattr(settings, name, None) for name in ('vocab_size', 'hidden_size')]
    if None in sizes:
        raise ValueError(
            f'{settings.model_type} is no text model: its config has no vocab_size and hidden_size.'
        )
    return settings


def _encoder_of(model: nn.Module) -> nn.Module:
    """What reads the text: of T5 and its like the encoder, else the whole."""
    return model.get_encoder() if model.config.is_encoder_decoder else model


def _count_positions(model: nn.Module) -> int | None:
    """Most tokens that a model takes; None where its positions are relative."""
    number = getattr(model.config, 'max_position_embeddings', None)
    table = getattr(getattr(model, 'embeddings', None), 'position_embeddings', None)
    padding = getattr(table, 'padding_idx', None)
    # RoBERTa and its like count from behind the position of the padding.
    return number if padding is None else number - padding - 1


def _id(kind: str, given: int | None, settings: 'PretrainedConfig') -> int:
    """The id of the padding or of the end, as given or as the model's config says."""
    key = dict(pad='pad_token_id', end='eos_token_id')[kind]
    index = getattr(settings, key, None) if given is None else given
    if not isinstance(index, int):
        raise ValueError(
            f'The config of this {settings.model_type} says no {key}: set {kind}_id to the one of '
            'the tokeniser.'
        )
    return index
