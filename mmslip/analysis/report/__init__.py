"""Reports on finished or running trainings and evaluations."""

from mmslip.analysis.report.page import write_report
from mmslip.analysis.report.runs import Run, read_runs

__all__ = ['Run', 'read_runs', 'write_report']
