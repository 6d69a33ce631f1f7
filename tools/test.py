"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``; see ``--help``."""

from mmslip.cli.test import main

if __name__ == '__main__':
    main()
