from mmslip.engine.speed.hook import SpeedHook
from mmslip.engine.speed.sharding import FullyShard

__all__ = ['FullyShard', 'SpeedHook']
