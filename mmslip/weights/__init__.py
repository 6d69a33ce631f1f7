from mmslip.weights.convert import ImportedModel, export_weights, import_weights, recognise
from mmslip.weights.exportable import exportable
from mmslip.weights.files import read_weights
from mmslip.weights.fit import Fit, fit_weights
from mmslip.weights.formats import FORMATS
from mmslip.weights.interpolate import interpolate_weights
from mmslip.weights.load import load_from_local
from mmslip.weights.lora import merge_lora
from mmslip.weights.preprocessing import Preprocessing
from mmslip.weights.spec import ModelSpec, TextSpec, VisionSpec
from mmslip.weights.spec_from_config import spec_from_config

__all__ = [
    'FORMATS',
    'Fit',
    'ImportedModel',
    'ModelSpec',
    'Preprocessing',
    'TextSpec',
    'VisionSpec',
    'export_weights',
    'exportable',
    'fit_weights',
    'import_weights',
    'interpolate_weights',
    'load_from_local',
    'merge_lora',
    'read_weights',
    'recognise',
    'spec_from_config',
]
