"""Small random models of mmslip and of its peers, for the tests of formats and converters."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmslip.registry import MODELS
from mmslip.weights import FORMATS, ModelSpec
from mmslip.weights.preprocessing import CLIP_PIXELS, Preprocessing
from mmslip.weights.spec import TextSpec, VisionSpec
from tests.text_parts import write_tokenizer

ROOT = Path(__file__).parents[2]
DATA = ROOT / 'tests' / 'data'
VOCAB, CONTEXT, SIDE, WIDTH, TEXT_WIDTH, DIM = 600, 16, 32, 128, 64, 24
CLIP_VISION = VisionSpec(
    width=WIDTH,
    layers=2,
    heads=2,
    mlp_width=512,
    patch_size=8,
    image_size=SIDE,
    activation='quick_gelu',
    eps=1e-5,
    pre_norm=True,
    patch_bias=False,
    qkv_bias=True,
)
CLIP_TEXT = TextSpec(VOCAB, CONTEXT, TEXT_WIDTH, layers=2, heads=1, activation='quick_gelu')
CLIP_IMAGES = Preprocessing(**CLIP_PIXELS, interpolation='bicubic')
CLIP = ModelSpec(CLIP_VISION, CLIP_TEXT, DIM, preprocessing=CLIP_IMAGES)


def shake(model: nn.Module, seed: int = 0) -> nn.Module:
    """Move every weight away from its initial value, so that none can be mistaken for another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in model.parameters():
            param.normal_(0, 0.15, generator=generator)
            if param.dim() == 1 and param.numel() > 1:
                param.add_(0.5)
    return model.eval()


def images(side: int = SIDE) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def texts() -> Tensor:
    """Token ids that end, as all captions do, with the highest id of the vocabulary."""
    text = torch.randint(1, VOCAB - 2, (4, CONTEXT), generator=torch.Generator().manual_seed(2))
    for row, end in enumerate((CONTEXT - 1, 3, 7, 1)):
        text[row, 0], text[row, end], text[row, end + 1 :] = VOCAB - 2, VOCAB - 1, 0
    return text


def load(folder: Path) -> nn.Module:
    """Build the model that a converted folder describes, with its weights and no others."""
    model = MODELS.build(Config.fromfile(folder / 'config.py').model)
    model.load_state_dict(load_file(folder / 'model.safetensors'), strict=True)
    return model.eval()


def random_slip(spec: ModelSpec) -> nn.Module:
    return shake(MODELS.build(spec.model()))


def save(model: nn.Module, spec: ModelSpec, folder: Path) -> Path:
    """Write a mmslip model as the converter does."""
    folder.mkdir()
    save_file(model.state_dict(), folder / 'model.safetensors')
    for name, text in FORMATS['mmslip'].describe(spec).items():
        (folder / name).write_text(text)
    return folder


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert expected.std() > 0.05  # or closeness would say nothing
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


# The peers: each writes its model as its library does and gives its embeddings.


def open_clip_config(**changes: object) -> dict:
    vision = dict(image_size=SIDE, layers=2, width=WIDTH, patch_size=8)
    text = dict(context_length=CONTEXT, vocab_size=VOCAB, width=TEXT_WIDTH, heads=1, layers=2)
    return dict(embed_dim=DIM, quick_gelu=True, vision_cfg=vision, text_cfg=text) | changes


def write_open_clip(folder: Path, custom: bool = False, **changes: object) -> tuple:
    model = pytest.importorskip('open_clip.model')
    cfg = open_clip_config(**changes)
    peer = shake((model.CustomTextCLIP if custom else model.CLIP)(**cfg))
    folder.mkdir()
    save_file(peer.state_dict(), folder / 'open_clip_model.safetensors')
    (folder / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg=cfg)))
    return peer, peer.encode_image, peer.encode_text


def hugging_face_model(act: str = 'quick_gelu', end: int = VOCAB - 1) -> nn.Module:
    transformers = pytest.importorskip('transformers')
    common = dict(num_hidden_layers=2, hidden_act=act)
    vision = dict(hidden_size=WIDTH, intermediate_size=512, num_attention_heads=2, **common)
    text = dict(hidden_size=TEXT_WIDTH, intermediate_size=256, num_attention_heads=1, **common)
    vision.update(image_size=SIDE, patch_size=8)
    text.update(vocab_size=VOCAB, max_position_embeddings=CONTEXT, eos_token_id=end)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM)
    return shake(transformers.CLIPModel(config))


def write_hugging_face(folder: Path, shard: str = '5GB', **changes: object) -> tuple:
    peer = hugging_face_model(**changes)
    peer.save_pretrained(folder, max_shard_size=shard)
    return peer, *hugging_face_embeddings(peer)


def hugging_face_embeddings(peer: nn.Module) -> tuple[Callable, Callable]:
    """``get_image_features`` returns different things in different releases; this does not."""

    def image(x: Tensor) -> Tensor:
        return peer.visual_projection(peer.vision_model(x).pooler_output)

    def text(x: Tensor) -> Tensor:
        return peer.text_projection(peer.text_model(x).pooler_output)

    return image, text


def siglip_model(length: int = 24, **changes: object) -> nn.Module:
    """Towers of two widths, and MLPs that are not four times as wide."""
    transformers = pytest.importorskip('transformers')
    common = dict(num_hidden_layers=2, num_attention_heads=2, **changes)
    vision = dict(hidden_size=48, intermediate_size=80, image_size=SIDE, patch_size=8, **common)
    text = dict(hidden_size=32, intermediate_size=56, vocab_size=120, projection_size=48, **common)
    text.update(max_position_embeddings=length, bos_token_id=2, eos_token_id=1)
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    model = shake(transformers.SiglipModel(config))
    with torch.no_grad():
        # Or what all images, and all texts, have in common would outweigh what they have not.
        for name, param in model.named_parameters():
            if name.endswith('bias') and param.numel() > 1:
                param.sub_(0.5)
            elif 'attention.in_proj' in name or 'out_proj' in name or 'q_proj' in name:
                param.mul_(4)
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-7.0)
    return model


def write_siglip(folder: Path, **changes: object) -> nn.Module:
    """A folder as it is published, with tokeniser and image processor."""
    transformers = pytest.importorskip('transformers')
    peer = siglip_model(**changes)
    peer.save_pretrained(folder)
    write_tokenizer(folder, 'siglip')
    transformers.SiglipImageProcessor(size=dict(height=SIDE, width=SIDE)).save_pretrained(folder)
    return peer


TIMM = dict(depth=2, img_size=32, patch_size=8, num_classes=7)
TIMM.update(embed_dim=48, num_heads=3)


def timm_vit(architecture: str, **arguments: object) -> tuple[nn.Module, ModuleType]:
    timm = pytest.importorskip('timm')
    return shake(timm.create_model(architecture, **(TIMM | arguments))), timm


def tiny_config(kind: str) -> str:
    vision = dict(width=48, layers=2, heads=3, mlp_width=192, patch_size=8, image_size=32)
    vision.update(activation='gelu', eps=1e-6, pre_norm=False, patch_bias=True, qkv_bias=True)
    text = None if kind == 'simclr' else TextSpec(512, 77, 32, 2, 4, 'quick_gelu')
    ssl = None if kind == 'clip' else (64, 16)
    return f'model = {ModelSpec(VisionSpec(**vision), text, text and 24, ssl).model()!r}'


def vit(width: int, heads: int, **changes: object) -> VisionSpec:
    settings = dict(layers=1, mlp_width=4 * width, patch_size=16, image_size=64)
    settings.update(activation='gelu', eps=1e-6, pre_norm=False, patch_bias=True, qkv_bias=True)
    return VisionSpec(width=width, heads=heads, **(settings | changes))


def write_official(path: Path) -> nn.Module:
    """A file of the official code: the ViT-S and text tower of SLIP with fewer layers."""
    text = TextSpec(600, 77, 512, layers=1, heads=8, activation='quick_gelu')
    spec = ModelSpec(vit(384, 12), text, 32, (48, 16))
    model = random_slip(spec)
    library = FORMATS['official_slip']
    torch.save(library.checkpoint(library.from_mmslip(model.state_dict(), spec)[0], spec), path)
    return model


def write_bare_open_clip(path: Path) -> None:
    """Weights alone, as wide as a ViT-B/32."""
    clip = dict(eps=1e-5, pre_norm=True, patch_bias=False, image_size=64, patch_size=32)
    spec = ModelSpec(vit(768, 12, **clip), TextSpec(600, 8, 512, 1, 8, 'gelu'), 16)
    weights = random_slip(spec).state_dict()
    torch.save(FORMATS['open_clip'].from_mmslip(weights, spec)[0], path)


def write_openai_archive(path: Path) -> nn.Module:
    """A TorchScript archive of half floats, with the three numbers that OpenAI's files hold."""
    model = pytest.importorskip('open_clip.model')
    ours = random_slip(CLIP).half().float()
    theirs, _ = FORMATS['openai'].from_mmslip(ours.state_dict(), CLIP)
    peer = model.build_model_from_openai_state_dict(dict(theirs), cast_dtype=None).float()
    peer.load_state_dict({name: theirs[name] for name in peer.state_dict()})
    peer.half()
    for name in ('input_resolution', 'context_length', 'vocab_size'):
        vars(peer).pop(name, None)
        peer.register_buffer(name, theirs[name])
    shells = {name: nn.Module() for name, _ in peer.named_modules()}
    for name, shell in shells.items():
        source = peer.get_submodule(name)
        for key, value in source.named_parameters(recurse=False):
            shell.register_parameter(key, nn.Parameter(value.data, requires_grad=False))
        for key, value in source.named_buffers(recurse=False):
            shell.register_buffer(key, value)
        if name:
            parent, _, child = name.rpartition('.')
            shells[parent].add_module(child, shell)
    torch.jit.trace_module(shells[''], {}).save(path)
    return ours


class Runs:
    """A value whose pickle calls a function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call
