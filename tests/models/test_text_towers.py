"""Text towers against open_clip and against loops, and CLIP's at any length."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmslip.models import HuggingFaceText, ModernTextTransformer, TextTransformer
from mmslip.models.backbones.text_pooling import caption_lengths, pool_tokens
from mmslip.models.blocks import find_blocks
from mmslip.models.widths import text_feature_width
from mmslip.registry import MODELS
from mmslip.weights.fit import fit_weights
from tests.text_parts import MODELS as CONFIGS


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def foreign(kind: str, **settings: object) -> HuggingFaceText:
    pytest.importorskip('transformers')
    cfg = dict(type='mmslip.HuggingFaceText', config=CONFIGS[kind], **settings)
    return MODELS.build(cfg).eval()


def captions(pad_id: int, end_id: int = 3) -> Tensor:
    """Of lengths 6, 1, 9 and 4, one with the padding's id inside, padded to 14."""
    ids = torch.full((4, 14), pad_id)
    for row, length in enumerate((6, 1, 9, 4)):
        ids[row, : length - 1] = torch.randint(10, 90, (length - 1,))
        ids[row, length - 1] = end_id
    ids[2, 3] = pad_id
    return ids


@pytest.mark.parametrize('kind', ['bert', 'xlm-roberta'])
@pytest.mark.parametrize(
    ('pooling', 'pooler'), [('mean', 'mean_pooler'), ('cls', 'cls_last_hidden_state_pooler')]
)
def test_equals_open_clip(kind: str, pooling: str, pooler: str) -> None:
    hf_model = pytest.importorskip('open_clip.hf_model')
    ours = foreign(kind, pooling=pooling)
    config = ours.transformer.config
    theirs = hf_model.HFTextEncoder('', ours.width, config, pooler_type=pooler).eval()
    state = ours.transformer.state_dict()
    left = theirs.transformer.load_state_dict(state, strict=False)
    assert all(name.startswith('pooler.') for name in left.missing_keys)
    assert not left.unexpected_keys
    ids = captions(ours.pad_id)
    ids[2, 3] = 11  # open_clip masks the id wherever it stands
    assert len(ids) == len(ours(ids)[0])
    torch.testing.assert_close(ours(ids)[0], theirs(ids), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(ours.trim(ids))[0], theirs(ids), rtol=1e-5, atol=1e-5)


def naive_pool(x: Tensor, ids: Tensor, pad_id: int, end_id: int, pooling: str) -> Tensor:
    features = []
    for tokens, row in zip(x, ids.tolist(), strict=True):
        length = len(row)
        while length > 1 and row[length - 1] == pad_id:
            length -= 1
        ends = [place for place, index in enumerate(row) if index == end_id]
        features.append(
            dict(
                cls=tokens[0], last=tokens[length - 1], eos=tokens[max(ends, default=0)],
                mean=tokens[:length].mean(0),
            )[pooling]
        )  # fmt: skip
    return torch.stack(features)


@pytest.mark.parametrize('pooling', ['cls', 'eos', 'last', 'mean'])
@pytest.mark.parametrize('pad_id', [0, 1])
def test_pooling_against_loops(pooling: str, pad_id: int) -> None:
    ids = torch.cat([captions(pad_id), torch.full((1, 14), pad_id)])
    lengths = caption_lengths(ids, pad_id)
    assert lengths.tolist() == [6, 1, 9, 4, 1]
    x = torch.randn(5, 14, 7)
    got = pool_tokens(x, ids, lengths, pooling, 3)
    torch.testing.assert_close(got, naive_pool(x, ids, pad_id, 3, pooling))


def test_an_end_token_that_starts_captions_too() -> None:
    """As in OPT: the last one is read."""
    x, ids = torch.randn(1, 5, 2), torch.tensor([[2, 7, 8, 2, 1]])
    assert pool_tokens(x, ids, caption_lengths(ids, 1), 'eos', 2).equal(x[:, 3])


@pytest.mark.parametrize('pooling', ['cls', 'eos', 'last', 'mean'])
@pytest.mark.parametrize('kind', CONFIGS)
def test_padding_changes_nothing(kind: str, pooling: str) -> None:
    tower = foreign(kind, pooling=pooling, end_id=3)
    ids = captions(tower.pad_id)
    trimmed = tower.trim(ids)
    assert trimmed.shape == (4, 9)
    (whole,), (short,) = tower(ids), tower(trimmed)
    torch.testing.assert_close(short, whole)
    alone = torch.cat([tower(tower.trim(row[None]))[0] for row in ids])
    torch.testing.assert_close(alone, whole)


@pytest.mark.parametrize('kind', CONFIGS)
def test_blocks_depths_and_sizes(kind: str) -> None:
    tower = foreign(kind)
    assert len(tower.get_blocks()) == 2
    assert len(find_blocks(nn.ModuleDict(dict(text_backbone=tower)))) == 2
    assert text_feature_width(tower) == tower.width == 16
    positions = dict(bert=26, modernbert=26, gpt2=26, t5=None)
    assert tower.context_length == positions.get(kind, 24)  # XLM-R keeps two for itself
    blocks = {id(param): n for n, b in enumerate(tower.get_blocks()) for param in b.parameters()}
    depths = {}
    for name, param in tower.named_parameters():
        depth, number = tower.get_layer_depth(f'text_backbone.{name}', 'text_backbone.')
        assert number == 4
        if id(param) in blocks:
            assert depth == blocks[id(param)] + 1
        else:
            depths[name.removeprefix('transformer.')] = depth
    assert {depth for name, depth in depths.items() if 'embed' in name or 'wte' in name} == {0}
    last = {name for name, depth in depths.items() if depth == 3}
    ends = {'modernbert': 'final_norm.weight', 't5': 'final_layer_norm.weight'}
    if kind in ends:
        assert last == {ends[kind]}
    elif kind == 'gpt2':
        assert last == {'ln_f.weight', 'ln_f.bias'}
    else:
        assert not last
    (tower(captions(tower.pad_id))[0] ** 2).sum().backward()
    assert all(param.grad is not None for param in tower.parameters())  # nothing is left out


@pytest.mark.parametrize('kind', ['bert', 't5'])
def test_weights_of_a_folder(kind: str, tmp_path) -> None:
    transformers = pytest.importorskip('transformers')
    config = transformers.AutoConfig.for_model(**CONFIGS[kind])
    donor = transformers.AutoModel.from_config(config)
    donor.to(torch.bfloat16).save_pretrained(tmp_path)
    tower = MODELS.build(dict(type='mmslip.HuggingFaceText', folder=str(tmp_path)))
    tower.init_weights()
    expected = (donor.get_encoder() if kind == 't5' else donor).state_dict()
    for name, value in tower.transformer.state_dict().items():
        assert value.dtype == torch.float32
        assert value.equal(expected[name].float()), name
    assert not any('pooler' in name for name in tower.state_dict())
    # Once more, as a runner does for a model that has been trained: nothing is loaded again.
    nn.init.zeros_(next(tower.parameters()))
    tower.init_weights()
    assert not next(tower.parameters()).any()


def test_a_folder_that_lacks_weights(tmp_path) -> None:
    pytest.importorskip('transformers')
    from safetensors.torch import load_file, save_file

    tower = foreign('bert')
    tower.transformer.save_pretrained(tmp_path)
    path = tmp_path / 'model.safetensors'
    weights = load_file(path)
    del weights['encoder.layer.1.output.dense.weight']
    save_file(weights, path, metadata=dict(format='pt'))
    other = HuggingFaceText(str(tmp_path))
    with pytest.raises(ValueError, match=r'lacks weights of its model, such as encoder\.layer\.1'):
        other.init_weights()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(), 'takes a folder or a config, one of them'),
        (dict(folder='a', config=dict(model_type='bert')), 'takes a folder or a config'),
        (dict(config=dict(hidden_size=8)), 'lacks the model_type'),
        (dict(config=dict(model_type='vit')), 'vit is no text model'),
        (dict(config=CONFIGS['bert'], pooling='max'), "pooling is 'max', which is none of cls"),
        (dict(config=CONFIGS['bert'], pooling='eos'), 'says no eos_token_id: set end_id'),
        (dict(config={**CONFIGS['gpt2'], 'pad_token_id': None}), 'no pad_token_id: set pad_id'),
    ],
)
def test_wrong_settings(settings: dict, message: str) -> None:
    pytest.importorskip('transformers')
    with pytest.raises(ValueError, match=message):
        HuggingFaceText(**settings)


def test_missing_folder(tmp_path) -> None:
    pytest.importorskip('transformers')
    with pytest.raises(FileNotFoundError, match=r'There is no config\.json in'):
        HuggingFaceText(tmp_path / 'bert-base')  # and nothing is looked up by this name


def modern(**settings: object) -> ModernTextTransformer:
    cfg = dict(type='mmslip.ModernTextTransformer', vocab_size=99, width=16, num_layers=2)
    tower = MODELS.build(dict(cfg, num_heads=2, pad_id=1, **settings))
    tower.init_weights()
    for param in tower.parameters():
        nn.init.normal_(param, std=0.3)
    return tower.double()


def naive_modern(tower: ModernTextTransformer, row: list[int]) -> Tensor:
    """One caption, one head, one token at a time."""

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean() + 1e-6).sqrt() * weight

    def turn(x: Tensor, place: int) -> Tensor:
        half, out = len(x) // 2, x.clone()
        for i in range(half):
            angle = torch.tensor(place * 10000 ** (-2 * i / len(x)), dtype=torch.float32).double()
            pair = torch.complex(x[i], x[i + half]) * torch.polar(torch.ones_like(angle), angle)
            out[i], out[i + half] = pair.real, pair.imag
        return out

    tokens = [tower.token_embedding.weight[index] for index in row]
    for block in tower.layers:
        size = tower.width // block.num_heads
        qkv = [block.qkv.weight @ norm(x, block.norm1.weight) for x in tokens]
        mixed = []
        for place, own in enumerate(qkv):
            heads = []
            for head in range(block.num_heads):
                part = slice(head * size, (head + 1) * size)
                q = turn(own[: tower.width][part], place)
                keys = [turn(x[tower.width : 2 * tower.width][part], n) for n, x in enumerate(qkv)]
                weights = torch.stack([q @ k / math.sqrt(size) for k in keys]).softmax(0)
                values = torch.stack([x[2 * tower.width :][part] for x in qkv])
                heads.append(weights @ values)
            mixed.append(block.proj.weight @ torch.cat(heads))
        tokens = [x + y for x, y in zip(tokens, mixed, strict=True)]
        out = []
        for x in tokens:
            gate, up = (block.gate_up.weight @ norm(x, block.norm2.weight)).chunk(2)
            out.append(x + block.down.weight @ (gate * gate.sigmoid() * up))
        tokens = out
    return torch.stack([norm(x, tower.norm.weight) for x in tokens]).mean(0)


def test_modern_tower_against_loops() -> None:
    tower = modern()
    ids = captions(1)
    expected = torch.stack(
        [naive_modern(tower, ids[n, :length].tolist()) for n, length in enumerate((6, 1, 9, 4))]
    )
    torch.testing.assert_close(tower(ids)[0], expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(tower(tower.trim(ids))[0], expected, rtol=1e-6, atol=1e-6)
    depths = {tower.get_layer_depth(name)[0] for name, _ in tower.named_parameters()}
    assert depths == {0, 1, 2, 3}
    assert tower.layers[0].gate_up.out_features == 2 * 48  # 16 / 3 * 8, rounded up


def test_modern_tower_reads_any_length_and_knows_the_order() -> None:
    tower = modern().float()
    ids = torch.randint(5, 99, (2, 300))
    with torch.autocast('cpu', torch.bfloat16):
        assert tower(ids)[0].isfinite().all()
    assert not torch.allclose(tower(ids)[0], tower(ids.flip(1))[0])
    with pytest.raises(ValueError, match='no even multiple'):
        ModernTextTransformer(99, width=6, num_heads=2)


def clip(context_length: int = 8, **settings: object) -> TextTransformer:
    tower = TextTransformer(60, context_length, 16, 2, 2, **settings)
    tower.init_weights()
    return tower.eval()


def test_clip_tower_with_another_end_token() -> None:
    ids = torch.tensor([[2, 50, 40, 3, 0, 0, 0, 0], [2, 30, 59, 31, 32, 3, 0, 0]])
    tower = clip(end_id=3)
    assert tower.trim(ids).shape == (2, 6)
    usual = clip()
    usual.load_state_dict(tower.state_dict())
    for row, length in zip(ids, (4, 6), strict=True):
        replaced = row[None].clone()
        (feature,) = tower(row[None])
        torch.testing.assert_close(feature, tower(row[None, :length])[0])
        replaced[0, 0] = 58  # no token before the end is left out
        assert not torch.allclose(tower(replaced)[0], feature)
    assert not torch.allclose(usual(ids)[0], tower(ids)[0])  # it reads ids 50 and 59
    # Where both rules find the same token, the features are the same.
    same = torch.tensor([[5, 6, 59, 0]])
    other = clip(end_id=59)
    other.load_state_dict(usual.state_dict())
    assert other(same)[0].equal(usual(same)[0])


def test_clip_tower_of_256_tokens() -> None:
    tower = clip(256)
    ids = torch.randint(1, 59, (2, 256))
    ids[0, 100], ids[1, 255] = 59, 59
    assert tower.trim(ids).shape == (2, 256)
    (features,) = tower(ids)
    torch.testing.assert_close(features[:1], tower(ids[:1, :101])[0])
    changed = ids.clone()
    changed[1, 3] = 7 if ids[1, 3] != 7 else 8
    assert not torch.allclose(tower(changed)[0][1], features[1])


@pytest.mark.parametrize('length', [5, 13])
def test_positions_are_interpolated(length: int) -> None:
    short, tower = clip(9), clip(length, resize_positions='interpolate')
    fit = fit_weights(short.state_dict(), tower)
    assert list(fit.resized) == ['pos_embed']
    tower.load_state_dict(short.state_dict())
    for place in range(length):
        at = place * 8 / (length - 1)  # between positions of the file
        low = min(int(at), 7)
        expected = short.pos_embed[low].lerp(short.pos_embed[low + 1], at - low)
        torch.testing.assert_close(tower.pos_embed[place], expected)


@pytest.mark.parametrize('length', [5, 13])
def test_positions_are_extended(length: int) -> None:
    short, tower = clip(9), clip(length, resize_positions='extend')
    own = tower.pos_embed.detach().clone()
    tower.load_state_dict(short.state_dict())
    number = min(length, 9)
    assert tower.pos_embed[:number].equal(short.pos_embed[:number])
    assert tower.pos_embed[number:].equal(own[number:])
    ids = torch.tensor([[7, 8, 59, 0, 0]])
    torch.testing.assert_close(tower(ids)[0], short(ids)[0])  # captions that fitted


def test_positions_do_not_fit_by_default() -> None:
    fit = fit_weights(clip(9).state_dict(), clip(13))
    assert fit.other_shape == dict(pos_embed=((9, 16), (13, 16)))
    wider = TextTransformer(60, 13, 8, 2, 2, resize_positions='extend')
    assert 'pos_embed' in fit_weights(clip(9).state_dict(), wider).other_shape
    with pytest.raises(ValueError, match="neither 'interpolate' nor 'extend'"):
        clip(resize_positions='nearest')
