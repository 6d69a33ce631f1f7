"""Search a folder of images by words or by an image; see ``--help``."""

from mmslip.cli.search import main

if __name__ == '__main__':
    main()
