"""Convert weights between libraries; see ``--help``."""

from mmslip.cli.convert import main

if __name__ == '__main__':
    main()
