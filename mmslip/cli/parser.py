"""The parser of a command line, with what all commands share."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mmslip.cli.errors import DEBUG, wait_for_first

__all__ = ['CommandParser', 'at_least']


class CommandParser(argparse.ArgumentParser):
    """Parser of ``mmslip COMMAND`` or of a script of ``tools/`` that stands for it.

    Args:
        command: Name of the command.
        settings: Of ``argparse.ArgumentParser``.
    """

    def __init__(self, command: str, **settings: Any) -> None:
        script = Path(sys.argv[0]).name
        by_script = script.endswith('.py') and script != '__main__.py'
        super().__init__(prog=script if by_script else f'mmslip {command}'.strip(), **settings)
        self.add_argument(
            '--debug', nargs=0, action=_Debug, help='show the traceback where an error ends it'
        )

    def error(self, message: str) -> NoReturn:
        """End with the usage and a message, said by the first process of a job."""
        wait_for_first()
        super().error(message)


def at_least(least: int) -> Callable[[str], int]:
    """Type of an argument: a whole number from ``least`` on; another one is a usage error."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f'{text} is no whole number from {least} on')
        return number

    return parse


class _Debug(argparse.Action):
    """Tells :func:`mmslip.cli.errors.plain_errors`, around the parser and all that follows."""

    def __call__(self, *_: object) -> None:
        os.environ[DEBUG] = '1'
