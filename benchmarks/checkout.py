"""Modules of tests/ for the benchmarks, which run as scripts from a checkout."""

import importlib
import pathlib
import sys

ROOT = pathlib.Path(__file__).parent.parent


def tests_module(name: str):
    """The module tests/NAME.py; it may import others of tests/ and benchmarks/."""
    for folder in (ROOT, ROOT / 'tests'):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return importlib.import_module(name)
