"""The layout of the code: import order of the rooms, no circles, short files.

`python tests/test_layout.py` prints all violations.
"""

import ast
import collections
import functools
import pathlib
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent

# A room is a folder or a flat module of jaxinv. A room imports rooms of the lines above its own;
# rooms of one line do not import each other. `__main__` is any `__main__.py`.
ORDER = (
    'text',
    'types errors',
    'io pixels rendering nn',
    'settings latents runtime generators networks',
    'converters defaults',
    'edits configs',
    'weights',
    'optimize faces',
    'data segmentation',
    'inversion',
    'metrics prompts',
    'report api',
    '__init__',
    'experiments',
    'launch convert',
    'studio',
    '__main__',
)
LAYER = {room: i for i, line in enumerate(ORDER) for room in line.split()}
# The folders in a checkout and the packages they are installed as.
PACKAGES = {'jaxinv': 'jaxinv', 'converters': 'jaxinv.converters', 'configs': 'jaxinv.configs'}
# What the command line, a config and the supervising process need is imported in a fraction of a
# second: their imports at module level, direct or not, exclude these packages.
LIGHT = ('settings', 'defaults', 'configs', 'launch', 'convert', 'runtime.supervisor')
HEAVY = {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'scipy', 'PIL', 'skimage', 'dlib', 'matplotlib'}

MAX_LINES = 500
TEXT = {'.py', '.html', '.css', '.js', '.j2', '.sh', '.yaml'}


class Import(NamedTuple):
    """One imported module: where the import is, and whether it runs as the file is imported."""

    source: str
    target: str
    path: pathlib.Path
    line: int
    eager: bool


def modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Module name -> file, under the names that modules have once installed."""
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((root / folder).rglob('*.py')):
            parts = path.relative_to(root / folder).with_suffix('').parts
            name = '.'.join((package, *parts))
            found[name.removesuffix('.__init__')] = path
    return found


def room(module: str) -> str:
    """Room of a module: its first name below jaxinv."""
    parts = module.split('.')
    if parts[-1] == '__main__':
        return '__main__'
    return parts[1] if len(parts) > 1 else '__init__'


def _targets(node: ast.AST, package: str, known) -> list[str]:
    """Modules that an import statement, or a call of import_module, imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ''
        if node.level:
            above = package.split('.')[: len(package.split('.')) - node.level + 1]
            base = '.'.join([*above, *([base] if base else [])])
        names = [f'{base}.{alias.name}' for alias in node.names]
        return sorted({name if name in known else base for name in names})
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func
        name = getattr(called, 'attr', None) or getattr(called, 'id', None)
        if name in ('import_module', '__import__') and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


@functools.cache
def imports(root: pathlib.Path) -> list[Import]:
    """All imports of all modules, also those in functions and under TYPE_CHECKING."""
    known = modules(root)
    found = []

    def visit(node, eager):
        for target in _targets(node, package, known):
            found.append(Import(module, target, path, node.lineno, eager))
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test)
        )
        for child in ast.iter_child_nodes(node):
            visit(child, eager and not lazy)

    for module, path in known.items():
        package = module if path.name == '__init__.py' else module.rpartition('.')[0]
        visit(ast.parse(path.read_text(encoding='utf-8'), str(path)), True)
    return found


def _circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module, by Tarjan's algorithm."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges.get(node, ())):
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def order_violations(root: pathlib.Path) -> list[str]:
    """Imports against the order, between rooms of one layer, and from rooms without a layer."""
    known, out = modules(root), []
    for name, path in known.items():
        if room(name) not in LAYER:
            out.append(f'{path.relative_to(root)}:1: the room {room(name)!r} has no layer in ORDER')
    for found in imports(root):
        where = f'{found.path.relative_to(root)}:{found.line}: imports {found.target}'
        first = found.target.split('.')[0]
        if first in ('converters', 'configs'):
            out.append(f'{where}: its name is jaxinv.{found.target}')
        elif first in ('launch', 'tests', 'benchmarks'):
            out.append(f'{where}: {first}/ is not installed')
        if first != 'jaxinv':
            continue
        if found.target not in known:
            out.append(f'{where}: there is no such module')
            continue
        source, target = room(found.source), room(found.target)
        if source == target or not {source, target} <= set(LAYER):
            continue
        if LAYER[source] == LAYER[target]:
            out.append(f'{where}: {source!r} and {target!r} are rooms of one layer')
        elif LAYER[source] < LAYER[target]:
            out.append(f'{where}: {source!r} is below {target!r}')
    return out


def circle_violations(root: pathlib.Path) -> list[str]:
    """Circles of imports between files, each with the lines that make it."""
    known, edges, places = modules(root), {}, {}
    for found in imports(root):
        if found.target in known and found.target != found.source:
            edges.setdefault(found.source, set()).add(found.target)
            places.setdefault((found.source, found.target), found)
    out = []
    for circle in _circles(edges):
        inside = [
            f'  {found.path.relative_to(root)}:{found.line}: imports {target}'
            for (source, target), found in sorted(places.items())
            if source in circle and target in circle
        ]
        out.append('\n'.join([f'circle of {", ".join(circle)}:', *inside]))
    return out


def weight_violations(root: pathlib.Path) -> list[str]:
    """Light modules that import a heavy package, each with the shortest way to one."""
    known, eager, out = modules(root), {}, []
    for found in imports(root):
        if found.eager:
            eager.setdefault(found.source, []).append(found)
            # Python imports the packages above a module first.
            parent = found.target.rpartition('.')[0]
            while parent in known and parent != found.source:
                eager[found.source].append(found._replace(target=parent))
                parent = parent.rpartition('.')[0]
    for start in known:
        if not any(f'{start}.'.startswith(f'jaxinv.{name}.') for name in LIGHT):
            continue
        above = [name for name in known if start.startswith(f'{name}.')]
        reached = dict.fromkeys([start, *above], '')
        queue, heavy = collections.deque(reached), []
        while queue and not heavy:
            for found in eager.get(queue.popleft(), ()):
                here = f'{found.path.relative_to(root)}:{found.line}'
                way = f'{reached[found.source]} {here}'.strip()
                if found.target.split('.')[0] in HEAVY:
                    heavy.append(f'{way}: {start} imports {found.target}')
                elif found.target in known and found.target not in reached:
                    reached[found.target] = way
                    queue.append(found.target)
        out += heavy[:1]
    return out


def length_violations(root: pathlib.Path) -> list[str]:
    """Files of more than MAX_LINES lines."""
    out = []
    for folder in (*PACKAGES, 'launch', 'benchmarks'):
        for path in sorted((root / folder).rglob('*')):
            if path.suffix in TEXT:
                count = len(path.read_text(encoding='utf-8').splitlines())
                if count > MAX_LINES:
                    out.append(f'{path.relative_to(root)}: {count} lines, at most {MAX_LINES}')
    return out


RULES = (order_violations, circle_violations, weight_violations, length_violations)


def _write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_imports_follow_the_order_of_the_rooms():
    assert not order_violations(ROOT), '\n'.join(['', *order_violations(ROOT)])


def test_no_imports_in_a_circle():
    assert not circle_violations(ROOT), '\n'.join(['', *circle_violations(ROOT)])


def test_settings_configs_and_the_launcher_import_nothing_heavy():
    assert not weight_violations(ROOT), '\n'.join(['', *weight_violations(ROOT)])


def test_files_are_short():
    assert not length_violations(ROOT), '\n'.join(['', *length_violations(ROOT)])


def test_every_room_of_the_order_exists():
    assert {room(name) for name in modules(ROOT)} == set(LAYER)


def test_the_order_is_checked_in_functions_and_under_type_checking(tmp_path):
    _write(
        tmp_path,
        {
            'jaxinv/__init__.py': '',
            'jaxinv/errors.py': 'def f():\n    from jaxinv import metrics\n',
            'jaxinv/io.py': 'if TYPE_CHECKING:\n    from jaxinv.weights.load import x\n',
            'jaxinv/metrics.py': 'import jaxinv.faces.align\n',
            'jaxinv/faces/__init__.py': 'from .align import detect\n',
            'jaxinv/faces/align.py': 'from ..optimize import loop\n',
            'jaxinv/optimize/loop.py': 'importlib.import_module("jaxinv.launch")\n',
            'jaxinv/weights/load.py': 'import converters.biggan\n',
            'jaxinv/launch.py': 'from jaxinv.gone import x\n',
            'jaxinv/attic/old.py': '',
            'converters/biggan.py': 'from launch import gke\n',
        },
    )
    assert order_violations(tmp_path) == [
        "jaxinv/attic/old.py:1: the room 'attic' has no layer in ORDER",
        "jaxinv/errors.py:2: imports jaxinv.metrics: 'errors' is below 'metrics'",
        'jaxinv/faces/align.py:1: imports jaxinv.optimize.loop: '
        "'faces' and 'optimize' are rooms of one layer",
        "jaxinv/io.py:2: imports jaxinv.weights.load: 'io' is below 'weights'",
        'jaxinv/launch.py:1: imports jaxinv.gone: there is no such module',
        "jaxinv/optimize/loop.py:1: imports jaxinv.launch: 'optimize' is below 'launch'",
        'jaxinv/weights/load.py:1: imports converters.biggan: its name is jaxinv.converters.biggan',
        'converters/biggan.py:1: imports launch: launch/ is not installed',
    ]


def test_a_circle_of_files_in_one_room_is_found(tmp_path):
    _write(
        tmp_path,
        {
            'jaxinv/data/__init__.py': 'from jaxinv.data.targets import load\n',
            'jaxinv/data/targets.py': 'from jaxinv.data import images\n',
            'jaxinv/data/images.py': 'def f():\n    from jaxinv.data import load\n',
        },
    )
    (circle,) = circle_violations(tmp_path)
    assert circle.splitlines()[0] == (
        'circle of jaxinv.data, jaxinv.data.images, jaxinv.data.targets:'
    )
    assert '  jaxinv/data/images.py:2: imports jaxinv.data' in circle.splitlines()


def test_a_heavy_import_is_found_through_other_files_and_packages(tmp_path):
    _write(
        tmp_path,
        {
            'jaxinv/__init__.py': 'def f():\n    import jax\n',
            'jaxinv/launch.py': 'from jaxinv.runtime import workdir\nfrom jaxinv import errors\n',
            'jaxinv/errors.py': '',
            'jaxinv/runtime/__init__.py': 'from jaxinv import latents\n',
            'jaxinv/runtime/workdir.py': '',
            'jaxinv/latents.py': 'import os\nimport jax.numpy as jnp\n',
        },
    )
    assert weight_violations(tmp_path) == [
        'jaxinv/launch.py:1 jaxinv/runtime/__init__.py:1 jaxinv/latents.py:2: '
        'jaxinv.launch imports jax.numpy',
    ]


if __name__ == '__main__':
    faults = [fault for rule in RULES for fault in rule(ROOT)]
    print('\n'.join(faults) or 'no violations')
    sys.exit(bool(faults))
