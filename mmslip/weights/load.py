"""Loading wherever mmengine loads: ``load_from``, ``--resume``, ``init_cfg``; data, never code.

Importing this module puts its functions in the place of mmengine's, of which those for addresses
unpickle what they fetch. mmengine names a function in its log by cutting ten characters off.
"""

import logging
import re
import shutil
from collections.abc import Mapping
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen

import torch
from filelock import FileLock
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmengine.model import PretrainedInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import (
    CheckpointLoader,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
    load_state_dict,
)
from torch import nn

from mmslip.utils import whole_file
from mmslip.weights.convert import import_weights, noted_folder, recognise, stated_spec
from mmslip.weights.files import read_weights, state_dict_of
from mmslip.weights.fit import fit_weights, plain_name
from mmslip.weights.formats.mmslip import MMSlip
from mmslip.weights.stated import require_stated

__all__ = ['Pretrained', 'load_from_local']


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a file or folder: checkpoints, ``.safetensors``, and weights of other libraries.

    Returns:
        A checkpoint with ``state_dict``, under mmslip's names where they are of a known library;
        with ``spec``, the model that they say they are of, where they say so.

    Raises:
        FileNotFoundError, RuntimeError: It is absent or unreadable, or holds code.
        ValueError: The library is known, yet the model has no counterpart in mmslip; or this is an
            address of an unknown scheme.
    """
    if address := re.match(r'([a-z][a-z0-9+.-]+)://', str(filename), re.IGNORECASE):
        return _load_from_address(filename, address[1], map_location)
    if folder := noted_folder(filename):
        imported = import_weights(folder)
        return dict(state_dict=imported.weights, meta={}, spec=imported.spec)
    checkpoint = _adapt(read_weights(filename, map_location), filename)
    if isinstance(checkpoint.get('meta'), dict):
        # mmengine's `resume` would execute it, to compare numbers of GPUs.
        checkpoint['meta'].pop('config', None)
    return checkpoint


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_http(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Fetch a file once into PyTorch's cache (``TORCH_HOME``) and read it from there.

    Raises:
        OSError: It cannot be fetched.
    """
    name = Path(urlsplit(filename).path).name or 'weights'
    # Files of one name at two addresses are two files.
    folder = Path(torch.hub.get_dir(), 'checkpoints', sha256(filename.encode()).hexdigest()[:16])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with FileLock(f'{path}.lock'):  # one process fetches, those beside it wait
        if not path.is_file():
            print_log(f'{filename} is fetched to {path}', logger='current')
            _fetch(filename, path)
    return load_from_local(str(path), map_location)


@CheckpointLoader.register_scheme(
    prefixes=('modelzoo://', 'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://'),
    force=True,
)
def load_from_model_zoo(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Fetch weights by the names that mmengine has for those of torchvision and OpenMMLab.

    Raises:
        KeyError: There is no such name.
        OSError: They cannot be fetched.
    """
    scheme, name = filename.split('://', 1)
    if scheme in ('modelzoo', 'torchvision'):
        addresses = get_torchvision_models()
    elif scheme == 'mmcls':
        addresses = get_mmcls_models()
    else:
        name = get_deprecated_model_names().get(name, name)
        addresses = get_external_models()
    if name not in addresses:
        raise KeyError(f'mmengine knows no weights {filename}.')
    checkpoint = CheckpointLoader.load_checkpoint(addresses[name], map_location)
    if scheme == 'mmcls':  # which stands for the backbone alone
        weights = {
            key.removeprefix('backbone.'): value
            for key, value in checkpoint['state_dict'].items()
            if key.startswith('backbone.')
        }
        checkpoint = dict(state_dict=weights, meta={})
    return checkpoint


@CheckpointLoader.register_scheme(prefixes=[r'(\S+\:)?s3://', r'(\S+\:)?petrel://'], force=True)
def load_from_ceph(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Fetch an object by mmengine's backend ``petrel`` and read it."""
    backend = get_file_backend(filename, backend_args=dict(backend='petrel'))
    with TemporaryDirectory() as folder:
        path = Path(folder, Path(filename).name)
        path.write_bytes(backend.get(filename))
        return load_from_local(str(path), map_location)


@CheckpointLoader.register_scheme(prefixes='pavi://', force=True)
def load_from_pavi(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Refuse: its client is no public package, so that nobody could try it.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f'{filename}: pavi:// is not supported; fetch the file and give its path.')


@WEIGHT_INITIALIZERS.register_module(name='Pretrained', force=True)
class Pretrained(PretrainedInit):
    """``init_cfg=dict(type='Pretrained', checkpoint=...)`` of mmengine, with a report.

    mmengine's goes on with random weights where no name fits.

    Args:
        checkpoint: Anything that mmslip loads.
        prefix: Take the part of the checkpoint whose names begin so, such as ``'backbone.'``.
        map_location: As in :func:`torch.load`.
    """

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into a module.

        Raises:
            ValueError: Not one of them fits.
        """
        checkpoint = CheckpointLoader.load_checkpoint(self.checkpoint, self.map_location)
        weights = checkpoint.get('state_dict', checkpoint)
        if self.prefix is not None:
            weights = _part_of(weights, self.prefix, self.checkpoint)
        fit = fit_weights(weights, module)
        fit.require_some(self.checkpoint)
        print_log(f'{self.checkpoint}: {fit.report()}', logger='current')
        if checkpoint.get('spec') is not None:
            require_stated(checkpoint['spec'], module, self.checkpoint)
        load_state_dict(module, fit.weights, logger='silent')  # has nothing to add
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())


def _load_from_address(address: str, scheme: str, map_location: Any) -> dict[str, Any]:
    """Read ``file://``, and others whose scheme is known in small letters."""
    known = address.replace(scheme, scheme.lower(), 1)
    if known.startswith('file:///'):
        return load_from_local(url2pathname(urlsplit(known).path), map_location)
    if known != address:
        return CheckpointLoader.load_checkpoint(known, map_location)
    raise ValueError(
        f'There is no way to read {address}: mmslip knows paths, file:///, https:// and s3://. '
        'Fetch the file and give its path.'
    )


def _fetch(address: str, path: Path) -> None:
    """Download a file; it appears whole or not at all.

    Raises:
        OSError: It cannot be had, or the connection ended before its end.
    """
    request = Request(address, headers={'User-Agent': 'mmslip'})
    try:
        with urlopen(request) as response, whole_file(path) as part:
            with part.open('wb') as file:
                shutil.copyfileobj(response, file)
            size, wanted = part.stat().st_size, response.headers.get('Content-Length')
            if wanted is not None and size != int(wanted):
                raise OSError(f'the connection ended after {size} of {wanted} bytes')
    except (OSError, HTTPException) as error:
        raise OSError(f'{address} cannot be fetched: {error}') from error


def _part_of(weights: Mapping[str, Any], prefix: str, source: str) -> dict[str, Any]:
    """The weights whose names have a prefix, perhaps behind a trainer's own (``model.``)."""
    prefix = prefix if prefix.endswith('.') else f'{prefix}.'
    weights = {plain_name(name): value for name, value in weights.items()}
    places = {name: f'.{name}'.find(f'.{prefix}') for name in weights}
    before = {name[:place] for name, place in places.items() if place >= 0}
    if '' in before:
        before = {''}
    if len(before) != 1:
        found = ', '.join(sorted({name.partition('.')[0] for name in weights})[:8])
        raise ValueError(
            f'{source} has {"several parts" if before else "no weights"} {prefix!r}: its names '
            f'begin with {found}. Give one of these as prefix, or none.'
        )
    start = before.pop() + prefix
    return {
        name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)
    }


def _adapt(checkpoint: Any, path: str | Path) -> dict[str, Any]:
    """A checkpoint as mmengine takes it: weights of known libraries under mmslip's names."""
    try:
        weights = state_dict_of(checkpoint)
    except ValueError:
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get('state_dict'), dict):
            raise
        return checkpoint  # with an empty state_dict
    origin, inner, others = recognise(weights)
    if origin is None or isinstance(origin, MMSlip):
        known = isinstance(checkpoint.get('state_dict'), Mapping)
        checkpoint = dict(checkpoint) if known else dict(state_dict=weights, meta={})
        return checkpoint | dict(spec=stated_spec(path, MMSlip(), weights))
    try:
        ours, left_out = origin.to_mmslip(inner)
        spec = stated_spec(path, origin, ours)
    except ValueError as error:
        command = f'mmslip convert {path} FOLDER --help'
        raise ValueError(f'{path} is of {origin.title}. {error} See {command}.') from error
    left_out = [*left_out, *others]
    more = f', ... ({len(left_out)})' if len(left_out) > 5 else ''
    print_log(
        f'{path} is of {origin.title}: {len(ours)} weights are loaded under the names of mmslip'
        + (f', without {", ".join(left_out[:5])}{more}.' if left_out else '.'),
        logger='current',
    )
    if spec is None:
        print_log(
            f'Nothing beside {path} says which heads, activation (GELU or QuickGELU) and mean it '
            'was trained with; those of your config are taken, and wrong ones cost accuracy.',
            logger='current',
            level=logging.WARNING,
        )
    return dict(state_dict=ours, meta={}, spec=spec)
