"""Show runs on one page: ``python tools/analysis/report.py WORK_DIR...``."""

from mmslip.cli.report import main

if __name__ == '__main__':
    main()
