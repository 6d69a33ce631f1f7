"""Packaging of mmslip."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent

# What `pip install` brings; lower bounds are the oldest versions that offer what we use.
REQUIREMENTS = [
    'torch>=2.6',
    'torchvision>=0.21',  # mmpretrain imports it without declaring it
    'mmengine>=0.10.7,<0.11',
    'mmcv-lite>=2.2.0,<2.3',  # a wheel; mmcv itself has to be compiled
    'mmpretrain>=1.2.0,<1.3',
    'numpy>=1.26',
    'Pillow>=10',
    'safetensors>=0.4',
    'filelock>=3.12',
    'matplotlib>=3.7',
    'rich>=13',
    'jinja2>=3.1',
    'ftfy>=6.1',
    'regex>=2023.0',
    'tokenizers>=0.15',
    'braceexpand>=0.1.7',
    'tensorboard>=2.14',
    'setuptools>=77.0.3,<82',  # mmengine imports pkg_resources, which 82 removed
]
EXTRAS = {
    'parquet': ['pyarrow>=14'],
    'stream': ['webdataset>=0.2.86'],
    'search': ['usearch>=2.16'],
    'timm': ['timm>=1.0'],
    'text': ['transformers>=4.50'],
    'web': ['gradio>=6'],
    'hub': ['huggingface_hub>=0.30'],
    'lora': ['peft>=0.14'],
    'onnx': ['onnx>=1.17', 'onnxscript>=0.5', 'onnxruntime>=1.20'],
    'tests': [
        'pytest>=8',
        'pytest-xdist>=3.5',
        'pytest-timeout>=2.2',
        'ruff>=0.9',
        'scikit-learn>=1.3',
        'pyarrow>=14',
        'webdataset>=0.2.86',
        'usearch>=2.16',
        # The web page, which is tested where there is a browser.
        'gradio>=6',
        'playwright>=1.40',
        'peft>=0.14',
        # What weights are converted from and to.
        'timm>=1.0.20',
        'open_clip_torch>=3.0',
        'transformers>=4.50',
        'sentence-transformers>=5.4',
        'huggingface_hub>=0.30',
        'onnx>=1.17',
        'onnxscript>=0.5',
        'onnxruntime>=1.20',
    ],
    # The site; see docs/conf.py.
    'docs': ['sphinx>=8', 'myst-parser>=4', 'furo>=2024.8.6'],
    # Only for making the emoji data set again.
    'converters': ['resvg-py>=0.1'],
}


class BuildWithMim(build_py):
    """Carry configs, tools and the model index in ``mmslip/.mim``, where ``mim`` looks for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the checkout itself is at hand
            return
        mim = Path(self.build_lib, 'mmslip', '.mim')
        for folder in ('configs', 'tools'):
            shutil.copytree(
                ROOT / folder,
                mim / folder,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns('__pycache__'),
            )
        shutil.copy2(ROOT / 'model-index.yml', mim)


def read_version() -> str:
    namespace: dict[str, str] = {}
    exec((ROOT / 'mmslip' / 'version.py').read_text(encoding='utf-8'), namespace)
    return namespace['__version__']


setup(
    name='mmslip',
    version=read_version(),
    description='SLIP, CLIP and SimCLR pre-training on mmengine and mmpretrain',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Environment :: Console',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    keywords='SLIP CLIP SimCLR image-text pre-training self-supervised OpenMMLab mmengine',
    python_requires='>=3.10',
    packages=find_packages(include=['mmslip', 'mmslip.*']),
    package_data={'mmslip': ['**/*']},  # data, templates, weights, py.typed
    exclude_package_data={'mmslip': ['*.pyc']},
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points=dict(console_scripts=['mmslip = mmslip.cli:main']),
    cmdclass={'build_py': BuildWithMim},
)
