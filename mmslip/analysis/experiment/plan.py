"""Sizes of a training that fit its data and its machine, each with its reason."""

import math
from dataclasses import dataclass

from mmslip.analysis.experiment.machine import Machine
from mmslip.analysis.experiment.start import Start
from mmslip.analysis.experiment.survey import Survey
from mmslip.analysis.experiment.vocabulary import Vocabulary

__all__ = ['ARCHITECTURES', 'SSL', 'Plan', 'make_plan', 'share_of_bare']

# Bytes that one view of 224 pixels takes in training, in bfloat16: rough, for a first batch size.
_VIEW_BYTES = dict(tiny=4e6, small=35e6, base=70e6, large=180e6, resnet50=45e6)
ARCHITECTURES = tuple(_VIEW_BYTES)
SSL = ('simclr', 'mocov3', 'byol', 'simsiam', 'barlowtwins', 'none')
# Narrow MLPs of the self-supervised half, for the tiny tower.
_PREDICTOR = 'head=dict(predictor=dict(in_channels={0}, hid_channels={1}, out_channels={0}))'
_NARROW = dict(
    simclr='neck=dict(hid_channels=512, out_channels=128)',
    mocov3='neck=dict(hid_channels=512, out_channels=128), ' + _PREDICTOR.format(128, 512),
    byol='neck=dict(hid_channels=512, out_channels=128), ' + _PREDICTOR.format(128, 512),
    simsiam='neck=dict(hid_channels=512, out_channels=512), ' + _PREDICTOR.format(512, 128),
    barlowtwins='neck=dict(hid_channels=512, out_channels=512), head=dict(in_channels=512)',
)
# Of AdamW, by whether the tower is the tiny one, and training starts from weights.
_LR = {(True, False): 1e-3, (True, True): 1e-4, (False, False): 5e-4, (False, True): 1e-5}
_LAYER_DECAY = 0.75  # in fine-tuning: what the first layers know is of use to all images
_NEW_LR = 5e-4  # of a self-supervised half that starts beside trained towers
_WHY_NEW = '; the self-supervised half starts anew'
_FEWEST = 32  # images: less than a batch of contrastive learning
_CONTEXT = 77  # tokens of CLIP's text tower


@dataclass
class Plan:
    """Settings of an experiment, and why they are so; see ``experiment.py.jinja``.

    Attributes:
        arch: One of :data:`ARCHITECTURES`.
        ssl: One of :data:`SSL`.
        image_size: Side of the views in pixels.
        batch: Samples of a step.
        steps: Steps of an epoch.
        epochs: Their number.
        why: Reasons by name.
    """

    arch: str
    ssl: str
    image_size: int
    batch: int
    steps: int
    epochs: int
    language: bool
    chunk: int | None
    mix: tuple[int, int] | None
    length: int
    patch: int
    stages: int
    context: int | None
    vocab_size: int | None
    warmup: int
    val_interval: int
    lr: float
    workers: int
    bf16: bool
    narrow: str
    ssl_size: int
    ssl_crop: float
    blur: float
    metric: str
    unlocked: int | None
    layer_decay: float | None
    ssl_lr: float | None
    average: int | None
    why: dict[str, str]


def make_plan(
    found: Survey,
    machine: Machine,
    arch: str | None = None,
    ssl: str | None = None,
    image_size: int | None = None,
    start: Start | None = None,
    vocabulary: Vocabulary | None = None,
    unlocked: int | None = None,
) -> Plan:
    """Choose what is not given.

    Args:
        found: The data.
        machine: Where it is trained.
        arch: One of :data:`ARCHITECTURES`.
        ssl: One of :data:`SSL`.
        image_size: Side of the views.
        start: Weights that training starts from, whose model decides where it is known.
        vocabulary: That of the captions, where it is not CLIP's.
        unlocked: Groups of each of its towers that train, from the output; by default all.

    Raises:
        ValueError: There are too few images, nothing to learn from, or weights that a choice does
            not fit.
    """
    if not found.sides:
        raise ValueError(
            f'None of the {found.looked:,} images that were looked at can be read: '
            f'{(found.unreadable or found.missing or found.faulty or [""])[0]}.'
        )
    language = found.captions > 0
    ssl = ssl or 'simclr'
    if not language and ssl == 'none':
        raise ValueError(
            'No image has a caption, so that only a self-supervised method can learn from them: '
            'leave out --ssl none, or name the captions (--data TABLE --images DIR).'
        )
    mix = None if ssl == 'none' else share_of_bare(found)
    bare = len(found.bare) if mix else 0
    if found.train < _FEWEST:
        raise ValueError(
            f'{found.train} {"captioned " * language}images are left to train on, and {_FEWEST} '
            'are the least: take more, or use trained weights as they are (mmslip classify).'
        )
    images = found.train + bare
    if start and start.arch:
        if arch:
            raise ValueError(f'--arch {arch}: the weights say what they are, so leave it out.')
        arch, why_arch = start.arch, 'as the weights are'
    elif start and not arch:
        raise ValueError(
            f'{start.weights} says nothing of its model: name it by --arch, or put the config of '
            'its run beside it.'
        )
    else:
        arch, why_arch = (arch, 'as --arch says') if arch else _arch(images, machine)
    size, why_size = _size(found, arch, machine, image_size)
    if start and start.image_size and not image_size:
        size, why_size = start.image_size, 'as the weights were trained'
    if start and start.model:
        _check_start(start, size, unlocked)
    views = 3 if ssl != 'none' and language else 1 if language else 2
    most = images  # of which a batch has its share of each kind
    if mix:
        most = min(found.train * sum(mix) / mix[0], bare * sum(mix) / mix[1])
    batch, chunk, why_batch = _batch(images, most, arch, size, views, machine)
    length = images // sum(mix or (1,)) * sum(mix or (1,))
    steps = length // batch
    epochs, why_epochs = _epochs(steps, machine, start is not None)
    lr = _LR[arch == 'tiny', start is not None]
    ssl_size = size // 2 if arch == 'tiny' and language else size  # a quarter of the cost
    blur = round(2 * ssl_size / 224, 1)  # SLIP's 2 pixels at 224
    return Plan(
        arch=arch,
        ssl=ssl,
        image_size=size,
        batch=batch,
        steps=steps,
        epochs=epochs,
        language=language,
        chunk=chunk,
        mix=mix,
        length=length,
        patch=_patch(size),
        stages=max(1, int(math.log2(size / 8))),
        context=_context(vocabulary.tokens if vocabulary else found.tokens),
        vocab_size=vocabulary.size if vocabulary else None,
        warmup=max(1, epochs // 20),
        val_interval=max(1, epochs // 20),
        lr=lr,
        workers=_workers(machine),
        bf16=machine.bf16,
        narrow=_NARROW.get(ssl, '') if arch == 'tiny' else '',
        ssl_size=ssl_size,
        ssl_crop=0.3 if size <= 64 else 0.2 if size <= 128 else 0.08,
        blur=blur if blur >= 0.5 else 0.0,
        metric=f'retrieval/held_out_t2i_r{1 if len(found.held_out) >= 500 else 5}',
        unlocked=unlocked,
        layer_decay=_LAYER_DECAY if start and start.by_depth else None,
        ssl_lr=_NEW_LR / lr if start and language and ssl != 'none' else None,
        average=max(10, epochs * steps // 20) if start else None,
        why=dict(
            arch=why_arch,
            image_size=why_size,
            split=_why_split(found),
            text='as the vocabulary and the captions need',
            batch=why_batch,
            lr=_why_lr(arch, start is not None),
            paramwise='of each layer, so much of the next one' + _WHY_NEW * (ssl != 'none'),
            warmup='a twentieth',
            epochs=why_epochs,
        ),
    )


def _check_start(start: Start, size: int, unlocked: int | None) -> None:
    """Refuse what the model of the weights cannot be."""
    patch = start.model['backbone'].get('patch_size')
    if isinstance(patch, int) and size % patch:
        raise ValueError(
            f'--image-size {size}: no multiple of {patch}, the side of the patches of the weights.'
        )
    if unlocked is not None and not start.by_depth:
        raise ValueError(
            '--unlocked-groups: a tower of the weights does not tell the depth of its layers '
            '(get_layer_depth); leave it out, or write frozen=[...] of whole parts.'
        )


def _arch(images: int, machine: Machine) -> tuple[str, str]:
    if not machine.gpu:
        return 'tiny', 'there is no GPU'
    if images < 20_000:
        return 'tiny', f'{images:,} images are few'
    return 'small' if images < 1e6 else 'base', f'{images:,} images'


def _size(found: Survey, arch: str, machine: Machine, wanted: int | None) -> tuple[int, str]:
    """Side of the views, which most images need not be enlarged to."""
    median = found.sides[len(found.sides) // 2]
    if wanted:
        return wanted, 'as --image-size says'
    usual = 224 if arch != 'tiny' else 96 if machine.gpu else 64
    if median >= usual:
        return usual, f'usual for {_device(machine)}; half of the images have {median} or more'
    unit = 16 if median >= 32 else 8
    return max(unit, median // unit * unit), 'as large as half of the images are'


def _device(machine: Machine) -> str:
    return 'a GPU' if machine.gpu else 'a CPU'


def share_of_bare(found: Survey) -> tuple[int, int] | None:
    """Weights of the images with a caption and of those without, by their numbers.

    None where less than one in sixteen has none: those are left out.
    """
    share = len(found.bare) / max(found.train + len(found.bare), 1)
    if share < 1 / 16:
        return None
    return min(((7, 1), (3, 1), (1, 1), (1, 3), (1, 7)), key=lambda w: abs(w[1] / sum(w) - share))


def _batch(
    images: int, most: float, arch: str, size: int, views: int, machine: Machine
) -> tuple[int, int | None, str]:
    """Samples of a step, slices of it where they do not fit, and why."""
    usual = 1024 if machine.gpu else 128
    by_data = max(_FEWEST, _power_of_two(images / 4), min(64, _power_of_two(images / 2)))
    by_data = min(by_data, _power_of_two(most))
    sample = _VIEW_BYTES[arch] * (size / 224) ** 2 * views * (1 if machine.bf16 else 2)
    fits = _power_of_two(0.6 * (machine.gpu_memory or machine.memory) / sample)
    # Slices give the gradient of the whole batch, but to towers with batch norm.
    sliced = arch not in ('tiny', 'resnet50')
    batch = min(usual, by_data, max(fits, 256) if sliced else max(fits, _FEWEST))
    chunk = fits if sliced and fits < batch else None
    steps = f'{images:,} images: {images // batch:,} steps an epoch'
    return batch, chunk, steps if batch == by_data else f'usual for {_device(machine)}; {steps}'


def _epochs(steps: int, machine: Machine, from_weights: bool) -> tuple[int, str]:
    goal = 20_000 if machine.gpu else 2000
    epochs = max(25 if machine.gpu else 5, round(goal / steps))
    epochs = min(epochs, 30 if from_weights else 200)
    return epochs, f'{steps:,} steps each, {epochs * steps:,} in all'


def _patch(size: int) -> int:
    """Side of a ViT's patches: at least 7 x 7 of them."""
    return next((side for side in (16, 8, 4, 2) if size % side == 0 and size // side >= 7), 1)


def _context(tokens: list[int]) -> int | None:
    """Length for captions of which many are longer than CLIP's 77 tokens; None if few are.

    Args:
        tokens: Lengths of captions, sorted.
    """
    high = tokens[int(0.98 * (len(tokens) - 1))] + 2 if tokens else 0
    return None if high <= _CONTEXT else math.ceil(high / 32) * 32


def _workers(machine: Machine) -> int:
    """Processes that read: without a GPU, training needs the cores itself."""
    return min(16, max(2, machine.cores - 2)) if machine.gpu else max(1, min(4, machine.cores // 2))


def _power_of_two(number: float) -> int:
    return 2 ** max(0, math.floor(math.log2(max(number, 1))))


def _why_split(found: Survey) -> str:
    held_out = len(found.held_out)
    if found.official:
        return f'the {held_out:,} images of its validation part are held out'
    return f'{held_out:,} images are held out; no two share a caption'


def _why_lr(arch: str, fine_tune: bool) -> str:
    if fine_tune:
        return 'small, since training starts from weights'
    return 'for a small tower' if arch == 'tiny' else "as CLIP's ViTs had"
