"""How the modules may depend on each other, and which of them start without PyTorch."""

import ast

import pytest
from conftest import ROOT, run_without_torch

SCRIPTS = {"train", "continue_train", "predict"}
LOOPS = {"training", "reading", "fitting"}
SHARED = {"config", "model", "finder", "dataset", "utils"}
GROUPS = {  # of parts, and which other groups each may import
    "system": (),
    "pictures": ("system",),
    "texts": ("system", "pictures"),
    "decoding": ("system", "pictures", "texts"),
    "results": ("system", "pictures", "texts", "decoding"),
}
PARTS = {f"htr.{path.parent.name}.{path.stem}" for path in (ROOT / "htr").glob("*/*.py") if path.stem != "__init__"}
NEED_TORCH = {"htr.pictures.packed", "htr.pictures.augmentation"}


def imports(module: str) -> set[str]:
    """Modules of this project that `module` imports anywhere, also within functions."""
    path = ROOT / (module.replace(".", "/") + ".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & (SCRIPTS | LOOPS | SHARED | PARTS)


def test_the_top_level_holds_the_eleven_modules():
    assert {path.stem for path in ROOT.glob("*.py")} == SCRIPTS | LOOPS | SHARED


def test_every_part_states_its_purpose():
    groups = {f"htr.{group}.__init__" for group in GROUPS}
    for part in PARTS | groups | {"htr.__init__"}:
        source = (ROOT / (part.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(source)), part


def test_every_part_has_a_group():
    assert {path.name for path in (ROOT / "htr").iterdir() if path.name != "__pycache__"} == GROUPS.keys() | {
        "__init__.py"
    }


def test_imports_run_one_way():
    """Scripts -> loops -> shared modules -> parts, and these from group to group."""
    for module in PARTS:
        assert imports(module) <= PARTS, f"{module} imports the top level"
        _, group, _ = module.split(".")
        others = {other.split(".")[1] for other in imports(module)} - {group}
        assert others <= set(GROUPS[group]), f"{module} imports {others}"
    for module in SHARED:
        assert imports(module) <= SHARED | PARTS, module
    for module in LOOPS:
        assert imports(module) <= LOOPS | SHARED | PARTS, module
    for module in SCRIPTS:
        assert not imports(module) & SCRIPTS, f"{module} imports a script"
    assert imports("config") == set()
    assert "model" not in imports("dataset") and "dataset" not in imports("model")


def test_no_imports_run_in_a_circle():
    seen = set()

    def visit(module, path):
        assert module not in path, f"circle: {[*path, module]}"
        if module not in seen:
            for other in imports(module):
                visit(other, [*path, module])
            seen.add(module)

    for module in SCRIPTS | LOOPS | SHARED | PARTS:
        visit(module, [])
    assert seen == SCRIPTS | LOOPS | SHARED | PARTS


def test_where_there_is_no_network_there_is_no_torch():
    done = run_without_torch(
        ROOT, f"import {', '.join(sorted(PARTS - NEED_TORCH))}, config, dataset, utils, reading, fitting"
    )
    assert done.returncode == 0, done.stderr
    for module in NEED_TORCH:
        assert run_without_torch(ROOT, f"import {module}").returncode  # which shows that torch cannot be imported


@pytest.mark.parametrize("name", ["train", "continue_train", "predict", "htr.pictures.synthetic"])
def test_help_needs_no_torch(name):
    code = f"import runpy; sys.argv = ['{name}.py', '--help']; runpy.run_module('{name}', run_name='__main__')"
    done = run_without_torch(ROOT, code)
    assert done.returncode == 0, done.stderr
    assert "(default: " in done.stdout
