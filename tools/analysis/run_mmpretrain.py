r"""Run a tool of the installed mmpretrain, as `mim run mmpretrain` does.

python tools/analysis/run_mmpretrain.py print_config CONFIG
python tools/analysis/run_mmpretrain.py analyze_logs plot_curve LOG.json --keys loss_clip
"""

import runpy
import sys
from pathlib import Path

import mmpretrain

import mmslip  # noqa: F401  (so that configs find their parts)


def main() -> None:
    folder = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
    kinds = 'analysis_tools', 'misc', 'visualization'
    tools = {path.stem: path for kind in kinds for path in sorted((folder / kind).glob('*.py'))}
    name = sys.argv[1] if len(sys.argv) > 1 else ''
    if name not in tools:
        raise SystemExit(
            f'Give a tool of mmpretrain and its arguments: {", ".join(tools)} (in {folder}).'
        )
    sys.argv = [str(tools[name]), *sys.argv[2:]]
    sys.path.insert(0, str(tools[name].parent))  # as if it had been started itself
    runpy.run_path(str(tools[name]), run_name='__main__')


if __name__ == '__main__':
    main()
