"""Libraries whose weights are read and written: one file each, and one line in ``FORMATS``."""

from mmslip.weights.format import Format
from mmslip.weights.formats.hugging_face import HuggingFaceCLIP
from mmslip.weights.formats.hugging_face_siglip import HuggingFaceSigLIP
from mmslip.weights.formats.mmpretrain import MMPretrainViT
from mmslip.weights.formats.mmslip import MMSlip
from mmslip.weights.formats.official_slip import OfficialSLIP
from mmslip.weights.formats.open_clip import OpenAICLIP, OpenCLIP
from mmslip.weights.formats.timm import TimmViT

__all__ = ['FORMATS']

FORMATS: dict[str, Format] = {
    library.name: library
    for library in (
        MMSlip(),
        OfficialSLIP(),
        OpenAICLIP(),
        OpenCLIP(),
        HuggingFaceCLIP(),
        HuggingFaceSigLIP(),
        TimmViT(),
        MMPretrainViT(),
    )
}
