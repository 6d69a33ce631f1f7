"""Weights under mmslip's own names."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmslip.datasets import HuggingFaceTokenizer
from mmslip.registry import TOKENIZERS
from mmslip.weights.format import Format, as_json
from mmslip.weights.rules import Rule
from mmslip.weights.spec import MERGES_NAME, ForeignText, ModelSpec
from mmslip.weights.tokenizer import merges_of, tokenizer_of

__all__ = ['MMSlip', 'find_files']

# In a folder of weights: arguments of tokenisers that name a file, and its name there.
_FILES = dict(path='tokenizer.json', merges_file=MERGES_NAME)
_FOLDER = '{{ fileDirname }}/'


class MMSlip(Format):
    """Checkpoints of mmslip, and folders with ``mmslip.json``.

    A folder also gets a ``config.py`` for people and for ``_base_``. It is never read by itself: it
    is a program, and folders may come from anywhere.
    """

    name = 'mmslip'
    title = 'mmslip'
    rules = (Rule('{rest}', '{rest}'),)
    description_file = 'mmslip.json'
    library = 'mmslip'
    usage = """import mmslip

model = mmslip.init_model('{folder}')"""

    def recognise(self, names: Collection[str]) -> bool:
        language_or_ssl = any(name.startswith(('text_backbone.', 'ssl.')) for name in names)
        return language_or_ssl and any(name.startswith('backbone.') for name in names)

    def read_spec(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> ModelSpec:
        if description is None:
            raise ValueError(
                'Heads and activation stand in the mmslip.json of a converted folder, which is '
                'not there: give the config that the model was trained with as --config.'
            )
        return ModelSpec.from_json(description, weights)

    def describe(self, spec: ModelSpec) -> dict[str, str]:
        """With the file of the tokeniser, where it is not CLIP's own."""
        text, files, described = spec.text, {}, spec
        if isinstance(text, ForeignText):
            files, tokenizer = _with_its_file(text.tokenizer)
            described = replace(spec, text=replace(text, tokenizer=tokenizer))
            beside = {key: f'{_FOLDER}{tokenizer[key]}' for key in _FILES if key in tokenizer}
            spec = replace(spec, text=replace(text, tokenizer={**tokenizer, **beside}))
        elif text is not None and text.merges_file is not None:
            files = {MERGES_NAME: merges_of(tokenizer_of(text))}
            spec = replace(spec, text=replace(text, merges_file=_FOLDER + MERGES_NAME))
        config = Config(spec.config()).pretty_text
        return {**files, 'mmslip.json': as_json(described.to_json()), 'config.py': config}

    def checkpoint(self, weights: dict[str, Tensor], spec: ModelSpec) -> dict:
        return dict(state_dict=weights)


def find_files(text: ForeignText, folder: Path) -> ForeignText:
    """The same with the file of its tokeniser in a folder."""
    files = {
        key: str(folder.absolute() / name)
        for key, name in _FILES.items()
        if text.tokenizer.get(key) == name
    }
    return replace(text, tokenizer={**text.tokenizer, **files})


def _with_its_file(cfg: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """The file of a tokeniser by its name in the folder, and a config that names it."""
    tokenizer = TOKENIZERS.build(dict(cfg))
    if isinstance(tokenizer, HuggingFaceTokenizer):
        content = Path(tokenizer.path).read_text(encoding='utf-8')
        return {_FILES['path']: content}, tokenizer.plain_config(_FILES['path'])
    if not cfg.get('merges_file'):
        return {}, dict(cfg)
    named = dict(cfg, merges_file=MERGES_NAME, num_merges=tokenizer.num_merges)
    return {MERGES_NAME: merges_of(tokenizer)}, named
