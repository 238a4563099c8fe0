"""Every notebook runs from top to bottom without the network, and what is stored of it is clean.

`python -m tests.test_notebooks` executes all of them in place and stores what the tests demand.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import kvplan

ROOT = Path(kvplan.__file__).parents[1]
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
DOORS = {
    "kvplan",
    "kvplan.report.plots",
    "kvplan.report.validation",
    "kvplan.report.validation_plot",
    "kvplan.sources.records",
    "pandas",
}


def execute(path, folder):
    """The notebook, executed in `folder` from no outputs, with nothing of the machine or the hour in it."""
    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=120, record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def shows_a_picture(notebook):
    return any("image/png" in output.get("data", {}) for output in outputs_of(notebook))


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A folder of its own, no network, and no settings of the user's."""
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # A client built on another host would want to reach this one, which answers nobody.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_draws(path, alone):
    notebook = execute(path, alone)
    assert [output for output in outputs_of(notebook) if output.output_type in ("error", "stream")] == []
    assert shows_a_picture(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_executed_and_reproducible(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert shows_a_picture(notebook)
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not re.search(r"/home/|/tmp/|/root/|/Users/|C:\\", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_goes_through_public_doors_and_defines_nothing(path):
    code = "\n".join(cell.source for cell in code_cells(nbformat.read(path, as_version=4)))
    nodes = list(ast.walk(ast.parse(code)))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported <= DOORS
    assert not [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]


if __name__ == "__main__":
    for each in NOTEBOOKS:
        nbformat.write(execute(each, each.parent), each)
