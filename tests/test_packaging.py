"""What is imported is required; what is installed is the package jaxinv alone, with its data."""

import ast
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import setuptools

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ('jaxinv', 'converters', 'configs', 'launch')
DISTRIBUTIONS = {
    'PIL': 'pillow',
    'absl': 'absl-py',
    'dlib': 'dlib-bin',
    'orbax': 'orbax-checkpoint',
    'skimage': 'scikit-image',
    'yaml': 'pyyaml',
}  # other distributions have the name of their module
NOT_IMPORTED = {'array-record'}  # tensorflow-datasets reads its files by it


@pytest.fixture(scope='module')
def packaging():
    """The arguments of setuptools.setup."""
    given = {}
    original, setuptools.setup = setuptools.setup, lambda **arguments: given.update(arguments)
    try:
        runpy.run_path(str(ROOT / 'setup.py'))
    finally:
        setuptools.setup = original
    return given


def canonical(name):
    return re.sub(r'[-_.]+', '-', name).lower()


def distributions(requirements):
    return {canonical(re.match(r'[\w.-]+', text)[0]) for text in requirements}


def imports(path):
    """(module, line, True if in a function) of every import of another project."""
    own = {file.stem for file in (ROOT / 'launch').glob('*.py')} | {'jaxinv'}

    def visit(node, inside):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        for name in names:
            module = name.split('.')[0]
            if module not in sys.stdlib_module_names and module not in own:
                yield module, node.lineno, inside
        inside = inside or isinstance(node, (ast.FunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text(encoding='utf-8')), False)


def test_every_import_is_required_and_every_requirement_imported(packaging):
    required = distributions(packaging['install_requires'])
    extras = packaging['extras_require']
    optional = distributions(sum((extras[name] for name in extras if name != 'test'), []))
    imported, missing = set(), []
    for path in (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob('*.py'))):
        for module, line, inside in imports(path):
            distribution = canonical(DISTRIBUTIONS.get(module, module))
            imported.add(distribution)
            # The studio's modules are imported by its command alone, which asks for its extra.
            inside = inside or 'studio' in path.parts
            if distribution not in (required | optional if inside else required):
                missing.append(f'{path.relative_to(ROOT)}:{line}: {module} ({distribution})')
    assert not missing, '\n'.join(missing)
    assert required <= imported, required - imported
    assert optional - NOT_IMPORTED <= imported, optional - imported


def test_every_requirement_has_a_lower_bound(packaging):
    assert all(re.fullmatch(r'[\w.-]+>=[\d.]+', text) for text in packaging['install_requires'])


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A folder with what a wheel of the checkout contains."""
    copy = tmp_path_factory.mktemp('checkout') / 'jaxinv'
    skip = shutil.ignore_patterns('__pycache__', '*.egg-info')
    for name in (*FOLDERS, 'tests', 'benchmarks'):
        shutil.copytree(ROOT / name, copy / name, ignore=skip)
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, copy)
    built = tmp_path_factory.mktemp('build')
    command = [sys.executable, 'setup.py', '-q', 'build', f'--build-base={built}']
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (library,) = built.glob('lib*')
    return library


def test_jaxinv_is_the_only_package_and_complete(installed):
    assert [path.name for path in installed.iterdir()] == ['jaxinv']
    found = {str(path.relative_to(installed)) for path in installed.rglob('*') if path.is_file()}
    expected = set()
    for folder in ('jaxinv', 'configs', 'converters'):
        for path in (ROOT / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                name = str(path.relative_to(ROOT))
                expected.add(name if folder == 'jaxinv' else f'jaxinv/{name}')
    assert found == expected
    for name in ('configs/pti_multi_id.py', 'converters/__main__.py', 'directions/ffhq.npz'):
        assert f'jaxinv/{name}' in found
    assert any(name.startswith('jaxinv/report/templates/') for name in found)


def module(folder, *arguments, cwd):
    environment = {**os.environ, 'PYTHONPATH': str(folder)}
    command = [sys.executable, '-m', *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_installed_commands_start(installed, tmp_path):
    assert 'tune.num_steps' in module(
        installed, 'jaxinv.launch', '--config=pti_multi_id', '--help', cwd=tmp_path
    )
    assert 'SRC DST' in module(installed, 'jaxinv.converters', '--help', cwd=tmp_path)
    program = 'import jaxinv.configs, jaxinv.converters as c; print(c.__file__)'
    done = subprocess.run(
        [sys.executable, '-c', program],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(installed / 'jaxinv' / 'converters' / '__init__.py')


def test_the_commands_of_a_checkout_start(tmp_path):
    for name in ('converters', 'jaxinv.converters', 'jaxinv.convert'):
        assert 'SRC DST' in module(ROOT, name, '--help', cwd=ROOT)


def test_the_console_scripts_exist(packaging):
    for script in packaging['entry_points']['console_scripts']:
        target = script.partition('=')[2].strip()
        path, _, function = target.partition(':')
        source = (ROOT / f'{path.replace(".", "/")}.py').read_text(encoding='utf-8')
        assert f'\ndef {function}() -> None:' in source
    assert [s.split()[0] for s in packaging['entry_points']['console_scripts']] == [
        'jaxinv',
        'jaxinv-convert',
        'jaxinv-studio',
    ]
