"""Classify images among labels of your own; see ``--help``."""

from mmslip.cli.classify import main

if __name__ == '__main__':
    main()
