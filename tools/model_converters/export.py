"""Export both towers to ONNX or torch.export; see ``--help``."""

from mmslip.cli.export import main

if __name__ == '__main__':
    main()
