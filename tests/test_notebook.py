"""The notebook of docs/notebooks runs from top to bottom, and is kept without outputs."""

import base64
import io
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, TinyProject
from nbclient import NotebookClient
from PIL import Image

PAGE = ROOT / "docs/notebooks/sample.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(PAGE, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)


def pictures(cell: nbformat.NotebookNode) -> list[Image.Image]:
    """What a cell shows."""
    shown = [output.data for output in cell.outputs if "data" in output]
    kinds = ("image/png", "image/gif")
    return [
        Image.open(io.BytesIO(base64.b64decode(data[kind])))
        for data in shown
        for kind in kinds
        if kind in data
    ]


@pytest.mark.slow
def test_the_notebook_draws_from_a_trained_run(finished_project: TinyProject) -> None:
    notebook = nbformat.read(PAGE, as_version=4)
    path = Path(finished_project.folder)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    _, load, many, seeds, guidance, film, compared = cells
    assert "num_inference_steps=3" in load.outputs[-1].data["text/plain"]
    heights = [pictures(cell)[0].height for cell in (many, seeds, guidance)]
    assert heights[0] < heights[1] < heights[2], "a row of prompts, two of seeds, four of prompts"
    films = pictures(film)
    assert [image.format for image in films] == ["GIF"] * 2 and all(image.n_frames == 3 for image in films)
    assert len(pictures(compared)) == 1
    assert "'num_prompts': 4" in compared.outputs[-1].data["text/plain"]
