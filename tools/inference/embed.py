"""Embed many images into Parquet or NumPy files; see ``--help``."""

from mmslip.cli.embed import main

if __name__ == '__main__':
    main()
