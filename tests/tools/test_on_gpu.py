"""The report of a GPU: its parts at toy size on a CPU, and whatever may become of a part."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import load_script


@pytest.fixture
def tool() -> ModuleType:
    return load_script('benchmarks/on_gpu')


def run(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, out: Path, *options: str, minutes: float = 10
) -> dict:
    arguments = ['--device', 'cpu', '--out', str(out), '--minutes', str(minutes), *options]
    monkeypatch.setattr(sys, 'argv', ['on_gpu.py', *arguments])
    tool.main()
    assert not list(out.glob('.*'))
    return json.loads((out / 'report.json').read_text())


def test_parts_at_toy_size(tool, monkeypatch, tmp_path):
    """Those that no other test runs; `throughput` and `compiled` are in test_train_throughput.py"""
    parts = ['profile', 'loader', 'main_job', 'photographs']
    report = run(tool, monkeypatch, tmp_path, '--toy', '--only', *parts)
    assert list(report['parts']) == parts
    status = {name: part['status'] for name, part in report['parts'].items()}
    expected = {**dict.fromkeys(parts, 'ok'), 'photographs': 'not run: no data'}
    assert status == expected, [part.get('output') for part in report['parts'].values()]
    profile = report['parts']['profile']['figures']['slip']
    assert {'matrix products', 'optimiser', 'attention', 'step'} <= profile.keys()
    assert min(profile.values()) >= 0
    assert profile['matrix products'] < profile['step']
    loader = report['parts']['loader']['figures']
    assert len(loader['ways']) == 4
    assert all(0 <= way['waits'] < 1 and way['images_per_s'] > 0 for way in loader['ways'].values())
    assert loader['decoding']['one_core_images_per_s'] > 0
    assert report['parts']['main_job']['figures']['step'] == 4
    page = (tmp_path / 'report.md').read_text()
    assert 'At toy size: the figures say nothing.' in page
    assert '| main_job | ok |' in page
    assert 'share of time that it waits' in page  # what the parts print


def python(code: str) -> str:
    return f'-c "{code}"'


def test_no_part_ends_the_others(tool, monkeypatch, tmp_path):
    parts = {
        'raises': 'raise ValueError(1234)',
        'hangs': "import subprocess; subprocess.run(['sleep', '99'])",
        'is killed': 'import os; os.kill(os.getpid(), 9)',
        'says nothing': 'print(5)',
        'works': "open(r'{json}', 'w').write('[7]'); print('seen')",
    }
    table = {
        name: tool.Part(f'{name} on purpose', 0.05 if name == 'hangs' else 1, python(code), '')
        for name, code in parts.items()
    }
    monkeypatch.setattr(tool, 'PARTS', table)
    report = run(tool, monkeypatch, tmp_path)['parts']
    assert [part['status'] for part in report.values()] == [
        'failed: 1',
        'stopped after 3 s',
        'failed: -9',
        report['says nothing']['status'],
        'ok',
    ]
    assert 'KeyboardInterrupt' in report['hangs']['output']  # where it was
    assert 'ValueError: 1234' in report['raises']['output']
    assert 'Traceback' in (tmp_path / 'report.md').read_text()
    assert report['says nothing']['status'].startswith('no figures: FileNotFoundError')
    assert report['works']['figures'] == [7]
    assert report['works']['output'] == 'seen\n'
    assert report['works']['command'].startswith('python -c')

    report = run(tool, monkeypatch, tmp_path, minutes=0.1)['parts']
    assert {part['status'] for part in report.values()} == {'not run: no time left'}


def test_figures_of_tests(tool, tmp_path):
    file = tmp_path / 'figures'
    file.write_text(
        '<testsuites><testsuite tests="4" skipped="1"><testcase classname="a" name="b"/>'
        '<testcase classname="a" name="c"><failure>no</failure></testcase>'
        '<testcase classname="a" name="d"><skipped/></testcase>'
        '<testcase classname="a" name="e"><error>no</error></testcase></testsuite></testsuites>'
    )
    assert tool.tests(file, tmp_path) == dict(passed=1, skipped=1, failed=['a::c', 'a::e'])


def test_packages_and_cards_that_are_not_there(tool, monkeypatch, tmp_path):
    version = tool.metadata.version

    def installed(name: str) -> str:
        if name == 'ftfy':
            raise tool.metadata.PackageNotFoundError
        return '81.0.3' if name == 'rich' else '5.9' if name == 'Pillow' else version(name)

    monkeypatch.setattr(tool.metadata, 'version', installed)
    missing = tool.missing_packages()
    assert 'ftfy>=6.1' in missing
    assert 'Pillow>=10 (there is 5.9)' in missing
    assert not any(line.startswith('rich') for line in missing)
    monkeypatch.setattr(tool.shutil, 'which', lambda name: None)
    with pytest.raises(SystemExit, match='no GPU: nvidia-smi is not installed'):
        tool.describe('cuda')


def test_every_command_names_files_that_are_there(tool):
    for name, part in tool.PARTS.items():
        for word in f'{part.command} {part.toy}'.split():
            if word.startswith(('tools/', 'configs/', 'tests')):
                assert (tool.ROOT / word).exists(), f'{name}: {word}'


def test_all_tests_that_need_a_gpu_are_among_the_parts(tool):
    """Those marked, and those of the fixture `device`, whose second value is."""
    needs_gpu = re.compile(r'mark\.gpu|def test_\w+\([^)]*\bdevice\b[^:]*\)', re.S)
    for path in sorted((tool.ROOT / 'tests').rglob('test_*.py')):
        if needs_gpu.search(path.read_text(encoding='utf-8')):
            name = path.relative_to(tool.ROOT)
            parts = [Path(part) for part in tool.TESTS.split()]
            assert any(name.is_relative_to(part) for part in parts), name


def test_kinds_of_kernels():
    profile = load_script('benchmarks/profile_step')
    for name, kind in {
        'nvjet_hsh_192x192_64x3_2x1_v_bz_coopB_TNN': 'matrix products',
        'sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64': 'matrix products',
        'void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm>': 'matrix products',
        'void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64>>': 'attention',
        'fmha_cutlassB_bf16_aligned_64x64_k64_sm80': 'attention',
        'cudnn_generated_fort_native_sdpa_sm90_flash_fprop': 'attention',
        'void multi_tensor_apply_kernel<FusedAdamMathFunctor>': 'optimiser',
        'void elementwise_kernel<direct_copy_kernel_cuda>': 'copies',
        'void vectorized_elementwise_kernel<bfloat16_copy_kernel_cuda>': 'copies',
        'Memcpy HtoD (Pinned -> Device)': 'copies',
        'void vectorized_layer_norm_kernel<float>': 'norms',
        'void GammaBetaBackwardCUDAKernel<float>': 'norms',
        'void cunn_SoftMaxForward<4, float>': 'loss',
        'ncclDevKernel_AllReduce_Sum_f32': 'communication',
        'triton_poi_fused_add_gelu_3': 'compiled',
        'void vectorized_elementwise_kernel<GeluCUDAKernel>': 'activations and additions',
        'aten::addmm': 'matrix products',
    }.items():
        assert profile.kind_of(name) == kind, name
    assert profile.busy([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == 4
