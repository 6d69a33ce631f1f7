"""Draw what the model will see: ``python tools/analysis/browse_dataset.py CONFIG``."""

from mmslip.cli.browse import main

if __name__ == '__main__':
    main()
