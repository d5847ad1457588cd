"""The report of a run: page, grid, pictures and JSON, written from plain data (`schema.Run`)."""

from jaxinv.report.pictures import Pictures
from jaxinv.report.schema import Drift, EditResult, Panel, Run, Stage, Table, Trace, join
from jaxinv.report.text import summary
from jaxinv.report.writer import folders, save_pictures, slugs, write, write_identity

__all__ = [
    'Drift', 'EditResult', 'Panel', 'Pictures', 'Run', 'Stage', 'Table', 'Trace', 'folders', 'join',
    'save_pictures', 'slugs', 'summary', 'write', 'write_identity',
]  # fmt: skip
