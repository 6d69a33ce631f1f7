"""The sizes of a config, compared before anything runs."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmslip.registry import HOOKS
from mmslip.utils.config import check_image_sizes

__all__ = ['ImageSizeHook']


@HOOKS.register_module()
class ImageSizeHook(Hook):
    """Refuse to start where two settings disagree on the size of the images.

    :func:`mmslip.load_config` does so as well; this is for runners of configs read without it,
    where ``image_size`` has not been written to the places it stands for.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Compare the sizes."""
        check_image_sizes(runner.cfg)
