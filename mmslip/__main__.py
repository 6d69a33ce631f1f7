"""``python -m mmslip``: the same as the command ``mmslip``."""

from mmslip.cli import main

if __name__ == '__main__':
    main()
