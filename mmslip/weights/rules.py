"""Renaming of weights between two libraries, written once and read in both directions."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ['Change', 'Rule', 'clip_text_rules', 'timm_vit_rules', 'to_ours', 'to_theirs']


class Change(NamedTuple):
    """A lossless change of layout and its inverse."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]


SAME = Change(lambda x: x, lambda x: x)
TRANSPOSED = Change(lambda x: x.T, lambda x: x.T)  # (D, C) <-> (C, D)
TOKEN = Change(lambda x: x.reshape(1, 1, -1), lambda x: x.flatten())  # (C,) <-> (1, 1, C)
BATCHED = Change(lambda x: x[None], lambda x: x[0])  # (N, C) <-> (1, N, C)
SCALAR = Change(lambda x: x.reshape(1), lambda x: x.reshape(()))  # () <-> (1,)

# Patterns of the fields of a name: a layer's number, one of its two parameters, any rest.
_FIELDS = dict(i=r'\d+', p='weight|bias', rest='.+')


class Rule(NamedTuple):
    """One weight, or one in each layer, under both of its names.

    Args:
        theirs: Name in the other library, with the fields ``{i}`` (layer), ``{p}`` (``weight`` or
            ``bias``) and ``{rest}``.
        ours: Name in mmslip, with the same fields.
        change: From their layout to ours.
        parts: Where ours is the concatenation of several of theirs: the values of ``{part}`` in
            their names, in order.
    """

    theirs: str
    ours: str
    change: Change = SAME
    parts: tuple[str, ...] = ()


def _match(template: str, name: str, parts: Sequence[str] = ()) -> dict[str, str] | None:
    pattern = re.escape(template)
    for field, values in dict(_FIELDS, part='|'.join(parts)).items():
        pattern = pattern.replace(re.escape(f'{{{field}}}'), f'(?P<{field}>{values})')
    found = re.fullmatch(pattern, name)
    return None if found is None else found.groupdict()


def to_ours(
    weights: Mapping[str, Tensor], rules: Iterable[Rule]
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename another library's weights.

    Returns:
        The weights under our names, and those names that no rule knows.

    Raises:
        ValueError: A weight that is joined from several lacks one of them.
    """
    rules = list(rules)
    ours, unknown, pieces = {}, [], {}
    for name, value in weights.items():
        for rule in rules:
            fields = _match(rule.theirs, name, rule.parts)
            if fields is not None:
                break
        else:
            unknown.append(name)
            continue
        target = rule.ours.format(**fields)
        if rule.parts:
            pieces.setdefault((target, rule), {})[fields['part']] = value
        else:
            ours[target] = rule.change.forward(value)
    for (target, rule), found in pieces.items():
        missing = [part for part in rule.parts if part not in found]
        if missing:
            raise ValueError(f'{target} is joined from {rule.theirs}, which lacks {missing}.')
        ours[target] = rule.change.forward(torch.cat([found[part] for part in rule.parts]))
    return ours, unknown


def to_theirs(
    weights: Mapping[str, Tensor], rules: Iterable[Rule]
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename our weights; the first rule that knows a name decides.

    Returns:
        The weights under the other library's names, and those of our names that no rule knows.
    """
    rules = list(rules)
    theirs, unknown = {}, []
    for name, value in weights.items():
        for rule in rules:
            fields = _match(rule.ours, name)
            if fields is not None:
                break
        else:
            unknown.append(name)
            continue
        value = rule.change.backward(value)
        if rule.parts:
            chunks = value.chunk(len(rule.parts))
            for part, chunk in zip(rule.parts, chunks, strict=True):
                theirs[rule.theirs.format(part=part, **fields)] = chunk
        else:
            theirs[rule.theirs.format(**fields)] = value
    return theirs, unknown


def timm_vit_rules(prefix: str = '') -> list[Rule]:
    """Rules of a ViT in timm's layout, which the official SLIP code and open_clip embed."""
    layer, ours = f'{prefix}blocks.{{i}}', 'backbone.layers.{i}'
    return [
        Rule(f'{prefix}cls_token', 'backbone.cls_token'),
        Rule(f'{prefix}pos_embed', 'backbone.pos_embed'),
        Rule(f'{prefix}patch_embed.proj.{{p}}', 'backbone.patch_embed.projection.{p}'),
        Rule(f'{prefix}norm_pre.{{p}}', 'backbone.pre_norm.{p}'),
        Rule(f'{layer}.norm1.{{p}}', f'{ours}.ln1.{{p}}'),
        Rule(f'{layer}.norm2.{{p}}', f'{ours}.ln2.{{p}}'),
        Rule(f'{layer}.attn.qkv.{{p}}', f'{ours}.attn.qkv.{{p}}'),
        Rule(f'{layer}.attn.proj.{{p}}', f'{ours}.attn.proj.{{p}}'),
        Rule(f'{layer}.mlp.fc1.{{p}}', f'{ours}.ffn.layers.0.0.{{p}}'),
        Rule(f'{layer}.mlp.fc2.{{p}}', f'{ours}.ffn.layers.1.{{p}}'),
        Rule(f'{prefix}norm.{{p}}', 'backbone.ln1.{p}'),
    ]


def clip_text_rules(prefix: str = '') -> list[Rule]:
    """Rules of CLIP's text tower in OpenAI's layout, and of the logit scale."""
    layer, ours = f'{prefix}transformer.resblocks.{{i}}', 'text_backbone.layers.{i}'
    return [
        Rule('logit_scale', 'head.logit_scale', SCALAR),
        Rule(f'{prefix}text_projection', 'text_neck.weight'),
        Rule(f'{prefix}positional_embedding', 'text_backbone.pos_embed'),
        Rule(f'{prefix}token_embedding.weight', 'text_backbone.token_embedding.weight'),
        Rule(f'{prefix}ln_final.{{p}}', 'text_backbone.ln_final.{p}'),
        Rule(f'{layer}.attn.in_proj_{{p}}', f'{ours}.qkv.{{p}}'),
        Rule(f'{layer}.attn.out_proj.{{p}}', f'{ours}.proj.{{p}}'),
        Rule(f'{layer}.ln_1.{{p}}', f'{ours}.ln1.{{p}}'),
        Rule(f'{layer}.ln_2.{{p}}', f'{ours}.ln2.{{p}}'),
        Rule(f'{layer}.mlp.c_fc.{{p}}', f'{ours}.fc1.{{p}}'),
        Rule(f'{layer}.mlp.c_proj.{{p}}', f'{ours}.fc2.{{p}}'),
    ]
