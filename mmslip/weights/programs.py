"""Towers written as programs that run without mmslip: ONNX graphs and `torch.export` programs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor, nn

from mmslip.utils import whole_file

__all__ = ['DTYPES', 'FILES', 'WRITERS', 'write_onnx', 'write_torch']

# Names of files, by format and tower, and their endings by precision: as transformers.js asks for.
FILES = dict(
    onnx=dict(
        image='onnx/vision_model{}.onnx', text='onnx/text_model{}.onnx', both='onnx/model{}.onnx'
    ),
    torch=dict(image='image{}.pt2', text='text{}.pt2'),
)
DTYPES = dict(fp32='', fp16='_fp16', int8='_quantized')
# Linear layers, token embeddings and convolutions have nearly all the weights.
_QUANTIZED = ['Conv', 'Gather', 'Gemm', 'MatMul']

Run = Callable[..., list[Tensor]]


def write_onnx(
    tower: nn.Module, inputs: Mapping[str, Tensor], paths: Mapping[str, Path]
) -> dict[str, Run]:
    """Write ONNX graphs of a module.

    Args:
        tower: Of :mod:`mmslip.weights.towers`, in eval mode, with float32 weights.
        inputs: Examples ``(B, 3, H, W)`` and ``(B, L)`` of its inputs, by name. Batches, and the
            length of texts up to L, may change.
        paths: Files to write, by a key of :data:`DTYPES`. Graphs in half precision take and give
            float32. Those of int8 hold weights of eight bits, one scale for each output channel,
            and quantise what the layers read while they run.

    Returns:
        By the same keys, functions that run the files in onnxruntime.

    Raises:
        ModuleNotFoundError: ONNX is not installed.
        RuntimeError: The module cannot be traced for batches of any size.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (which torch.onnx needs)
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'{error}: pip install "mmslip[onnx]"') from error

    def to_graph(tower: nn.Module) -> torch.onnx.ONNXProgram:
        return torch.onnx.export(
            _trace(tower, inputs),
            input_names=list(inputs),
            output_names=list(tower.outputs),
            dynamo=True,
            verbose=False,
        )

    program = to_graph(tower)
    for dtype, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if dtype == 'fp16':
            to_graph(deepcopy(tower).half()).save(path)
        elif dtype == 'int8':
            graph = program.model_proto
            # It is simplified and has shapes; otherwise a warning would ask for that.
            graph.metadata_props.add(key='onnx.quant.pre_process', value='onnxruntime.quant')
            quantize_dynamic(
                graph,
                path,
                op_types_to_quantize=_QUANTIZED,
                per_channel=True,
                weight_type=QuantType.QUInt8,  # the only one of convolutions everywhere
            )
        else:
            program.save(path)  # and, above two gigabytes, a file of weights that it names
    return {dtype: _in_onnxruntime(onnxruntime, path) for dtype, path in paths.items()}


def write_torch(
    tower: nn.Module, inputs: Mapping[str, Tensor], paths: Mapping[str, Path]
) -> dict[str, Run]:
    """As :func:`write_onnx`, for ``torch.export.load``, where results have no names.

    Raises:
        ValueError: It has no int8.
        RuntimeError: The module cannot be traced for batches of any size.
    """
    if 'int8' in paths:
        raise ValueError('Programs of torch.export are written in fp32 and fp16: int8 is for ONNX.')
    for dtype, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        program = _trace(deepcopy(tower).half() if dtype == 'fp16' else tower, inputs)
        with whole_file(path) as part:
            torch.export.save(program, part)
    return {dtype: _in_torch(path) for dtype, path in paths.items()}


WRITERS = dict(onnx=write_onnx, torch=write_torch)


def _trace(tower: nn.Module, inputs: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    """Trace a module whose batches and lengths of texts may change.

    Raises:
        RuntimeError: It cannot be traced so.
    """
    try:
        with _whole_batches():
            shapes = _dynamic(inputs)
            return torch.export.export(tower, tuple(inputs.values()), dynamic_shapes=shapes)
    except Exception as error:  # such as of GPT-2 as a text tower
        raise RuntimeError(
            f'PyTorch cannot trace {" and ".join(inputs)} to {" and ".join(tower.outputs)} for '
            f'batches of any size, so this model cannot be exported: {error}'
        ) from error


@contextmanager
def _whole_batches() -> Iterator[None]:
    """Within, mmpretrain's Swin counts its images without floats, which would fix their number."""
    theirs = ShiftWindowMSA.__dict__['window_reverse']
    ShiftWindowMSA.window_reverse = staticmethod(_join_windows)
    try:
        yield
    finally:
        ShiftWindowMSA.window_reverse = theirs


def _join_windows(windows: Tensor, height: int, width: int, size: int) -> Tensor:
    """Maps ``(B, H, W, C)`` of their windows ``(B * windows, size, size, C)``."""
    channels = windows.shape[-1]
    x = windows.view(-1, height // size, width // size, size, size, channels)
    return x.transpose(2, 3).reshape(-1, height, width, channels)


def _dynamic(inputs: Mapping[str, Tensor]) -> tuple[dict, ...]:
    """The dimensions of each argument that may change."""
    dims = []
    for name, value in inputs.items():
        dims.append({0: torch.export.Dim(f'{name}_batch')})
        if not value.is_floating_point():  # ids
            dims[-1][1] = torch.export.Dim('length', max=value.shape[1])
    return tuple(dims)


def _in_onnxruntime(onnxruntime: object, path: Path) -> Run:
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    names = [part.name for part in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return [torch.from_numpy(result) for result in session.run(None, feed)]

    return run


def _in_torch(path: Path) -> Run:
    module = torch.export.load(path).module()

    def run(*inputs: Tensor) -> list[Tensor]:
        results = module(*inputs)
        return [results] if isinstance(results, Tensor) else list(results)

    return run
