"""How the modules may depend on each other, and which of them start without PyTorch."""

import ast

import pytest
from conftest import ROOT, run_without_torch

SCRIPTS = {"train", "continue_train", "predict"}
LOOPS = {"training", "reading"}
SHARED = {"config", "model", "dataset", "utils"}
PARTS = {f"htr.{path.stem}" for path in (ROOT / "htr").glob("*.py") if path.stem != "__init__"}
NEED_TORCH = {"htr.packed", "htr.augmentation"}


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


def test_the_top_level_holds_the_nine_modules():
    assert {path.stem for path in ROOT.glob("*.py")} == SCRIPTS | LOOPS | SHARED


def test_every_part_states_its_purpose():
    for part in PARTS:
        source = (ROOT / (part.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(source)), part


def test_imports_run_one_way():
    """Scripts -> loops -> shared modules -> parts."""
    for module in PARTS:
        assert imports(module) <= PARTS, f"{module} imports the top level"
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
    done = run_without_torch(ROOT, f"import {', '.join(sorted(PARTS - NEED_TORCH))}, config, dataset, utils, reading")
    assert done.returncode == 0, done.stderr
    for module in NEED_TORCH:
        assert run_without_torch(ROOT, f"import {module}").returncode  # which shows that torch cannot be imported


@pytest.mark.parametrize("name", ["train", "continue_train", "predict", "htr.synthetic"])
def test_help_needs_no_torch(name):
    code = f"import runpy; sys.argv = ['{name}.py', '--help']; runpy.run_module('{name}', run_name='__main__')"
    done = run_without_torch(ROOT, code)
    assert done.returncode == 0, done.stderr
    assert "(default: " in done.stdout
