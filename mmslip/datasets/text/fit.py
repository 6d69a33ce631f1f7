"""Whether a tokeniser and a text tower belong together."""

from typing import Any

from mmslip.datasets.text.base import BaseTokenizer

__all__ = ['require_fit', 'tokenizer_faults']


def tokenizer_faults(
    tokenizer: BaseTokenizer,
    tower: Any,
    path: str = 'the tokeniser',
    tower_path: str = 'model.text_backbone',
) -> list[str]:
    """What keeps a text tower from reading the ids of a tokeniser rightly.

    A tower says what it expects by attributes, of which it may lack any: ``vocab_size`` and
    ``context_length``, of its tables; ``whole_rows``, whether all rows have to be as long as that;
    ``pad_id``, which it masks; ``end_id``, whose token it reads, where ``'highest'`` stands for the
    highest id of a caption.

    Args:
        tokenizer: Makes the ids.
        tower: Reads them.
        path: Of the tokeniser in the config, for messages.
        tower_path: Of the tower, likewise.

    Returns:
        A sentence for each, with both settings and the remedy.
    """
    vocab_size, longest, pad_id, end_id = (
        getattr(tower, name, None) for name in ('vocab_size', 'context_length', 'pad_id', 'end_id')
    )
    found = []
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        found.append(
            f'{tower_path}.vocab_size = {vocab_size}: {path} makes ids up to '
            f'{tokenizer.vocab_size - 1}; must be at least {tokenizer.vocab_size}.'
        )
    if longest is not None and tokenizer.context_length > longest:
        found.append(
            f'{path}.context_length = {tokenizer.context_length}: is more than the text tower '
            f'takes ({tower_path}.context_length = {longest}); make them equal.'
        )
    elif getattr(tower, 'whole_rows', False) and tokenizer.context_length != longest:
        found.append(
            f'{path}.context_length = {tokenizer.context_length}: the text tower reads whole rows, '
            f'padding too, of {tower_path}.context_length = {longest}; make them equal.'
        )
    if pad_id is not None and tokenizer.pad_id == tokenizer.end_id:
        found.append(
            f'{tower_path}.pad_id = {pad_id}: {path} fills rows with its end token, which the text '
            'tower would mask as well; leave padding_counts out.'
        )
    elif pad_id not in (None, tokenizer.pad_id):
        found.append(
            f'{tower_path}.pad_id = {pad_id}: {path} fills rows with {tokenizer.pad_id}, which the '
            f'text tower would take for words; set {tower_path}.pad_id = {tokenizer.pad_id}, or '
            'take the tokeniser that the tower was trained with.'
        )
    highest = end_id == 'highest'
    if highest and tokenizer.end_id != tokenizer.vocab_size - 1:
        end = f"{tower_path}.end_id = 'highest'"
        reason = f'is {tokenizer.end_id}, below other ids, one of which would be read in its place'
    elif not highest and end_id not in (None, tokenizer.end_id):
        end, reason = f'{tower_path}.end_id = {end_id}', f'is {tokenizer.end_id}'
    else:
        return found
    remedy = f'set {tower_path}.end_id = {tokenizer.end_id}'
    return [*found, f'{end}: the end token of {path} {reason}; {remedy}.']


def require_fit(tokenizer: BaseTokenizer, tower: Any) -> None:
    """Refuse a tokeniser that does not fit a tower.

    Raises:
        ValueError: The message names the settings and the remedy.
    """
    faults = tokenizer_faults(tokenizer, tower)
    if faults:
        raise ValueError('Tokeniser and text tower do not fit. ' + ' '.join(faults))
