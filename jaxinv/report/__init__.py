"""The report of a run: page, grid, pictures and JSON, written from plain data (`schema.Run`)."""

from jaxinv.report.schema import Drift, EditResult, Panel, Run, Stage, Table, Trace
from jaxinv.report.writer import slugs, write, write_one

__all__ = [
    'Drift', 'EditResult', 'Panel', 'Run', 'Stage', 'Table', 'Trace', 'slugs', 'write',
    'write_one',
]  # fmt: skip
