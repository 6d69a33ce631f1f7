from mmslip.engine.optim.bf16 import BF16OptimWrapper
from mmslip.engine.optim.constructor import NoDecay1dOptimWrapperConstructor
from mmslip.engine.optim.warmup import WarmupLR

__all__ = ['BF16OptimWrapper', 'NoDecay1dOptimWrapperConstructor', 'WarmupLR']
