"""Examine a training job before it starts: ``python tools/doctor.py CONFIG``."""

from mmslip.cli.doctor import main

if __name__ == '__main__':
    main()
