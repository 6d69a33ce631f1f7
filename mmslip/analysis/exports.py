"""Where the trained model can go: said while its config can still be changed."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from mmslip.analysis.finding import Finding
from mmslip.utils.parts import is_kind
from mmslip.weights import FORMATS, exportable

__all__ = ['check_exports']


def check_exports(cfg: Mapping[str, Any]) -> Finding:
    """Libraries that can have the model without loss; for the others, what to change.

    Layouts of one code base (OpenAI's, the official SLIP code's) are left out, of the two of
    transformers that of other text towers, and for an image tower alone those libraries that have
    none.
    """
    text = cfg['model'].get('text_backbone')
    siglip = bool(text) and is_kind(text, 'SigLIPTextTransformer')
    other = 'hugging_face' if siglip else 'hugging_face_siglip'
    refused = defaultdict(list)  # names by reason
    taken = []
    for name, reason in exportable(cfg).items():
        if FORMATS[name].usage is None or name == other:
            continue
        if reason is None:
            taken.append(name)
        elif text or not FORMATS[name].needs_text:
            refused[reason].append(name)
    can = f'can be converted for {", ".join(taken)}' if taken else 'cannot be converted'
    if not refused:
        return Finding('exports', can)
    lines = [f'not for {", ".join(names)}: {reason}' for reason, names in refused.items()]
    remedy = 'change this before training, or take `mmslip export` (ONNX), which has any model'
    return Finding('exports', '\n'.join([can, *lines]), 'warn', remedy)
