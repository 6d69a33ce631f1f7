"""Classification and search on a web page; see ``--help``."""

from mmslip.cli.web import main

if __name__ == '__main__':
    main()
