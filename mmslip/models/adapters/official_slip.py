"""State dicts of the official SLIP repository in the names of mmslip."""

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ['convert_official_slip']

# (official name, ours), tried in order on the name without its 'module.' prefix.
_RULES = [
    (r'visual\.patch_embed\.proj\.(.*)', r'backbone.patch_embed.projection.\1'),
    (r'visual\.blocks\.(\d+)\.norm([12])\.(.*)', r'backbone.layers.\1.ln\2.\3'),
    (r'visual\.blocks\.(\d+)\.attn\.(.*)', r'backbone.layers.\1.attn.\2'),
    (r'visual\.blocks\.(\d+)\.mlp\.fc1\.(.*)', r'backbone.layers.\1.ffn.layers.0.0.\2'),
    (r'visual\.blocks\.(\d+)\.mlp\.fc2\.(.*)', r'backbone.layers.\1.ffn.layers.1.\2'),
    (r'visual\.norm\.(.*)', r'backbone.ln1.\1'),
    (r'visual\.(cls_token|pos_embed)', r'backbone.\1'),
    (r'image_projection', r'neck.weight'),
    (r'text_projection', r'text_neck.weight'),
    (r'logit_scale', r'head.logit_scale'),
    (r'positional_embedding', r'text_backbone.pos_embed'),
    (r'(token_embedding|ln_final)\.(.*)', r'text_backbone.\1.\2'),
    (
        r'transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)',
        r'text_backbone.layers.\1.qkv.\2',
    ),
    (r'transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.*)', r'text_backbone.layers.\1.proj.\2'),
    (r'transformer\.resblocks\.(\d+)\.ln_([12])\.(.*)', r'text_backbone.layers.\1.ln\2.\3'),
    (r'transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.*)', r'text_backbone.layers.\1.fc1.\2'),
    (r'transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.*)', r'text_backbone.layers.\1.fc2.\2'),
    (r'image_mlp\.layer1\.(.*)', r'ssl.neck.fc0.\1'),
    (r'image_mlp\.bn1\.(.*)', r'ssl.neck.bn0.\1'),
    (r'image_mlp\.layer2\.(.*)', r'ssl.neck.fc1.\1'),
    (r'image_mlp\.bn2\.(.*)', r'ssl.neck.bn1.\1'),
    (r'image_mlp\.layer3\.(.*)', r'ssl.neck.fc2.\1'),
]


def convert_official_slip(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename an official SLIP, CLIP or SimCLR state dict.

    Args:
        state_dict: As published, with or without the ``module.`` prefix.

    Returns:
        The state dict of the matching :class:`mmslip.models.SLIP`, and the names that have no
        counterpart here.
    """
    converted, unmapped = {}, []
    for name, value in state_dict.items():
        name = name.removeprefix('module.')
        ours = official_name_to_ours(name)
        if ours is None:
            unmapped.append(name)
        else:
            converted[ours] = value.reshape(1) if name == 'logit_scale' else value
    return converted, unmapped


def official_name_to_ours(name: str) -> str | None:
    """Our name of an official parameter (without ``module.``), ``None`` where there is none."""
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return None
