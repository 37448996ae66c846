"""Runs the notebooks from start to end, and writes them back with what came out.

    python notebooks/execute.py [NOTEBOOK …]

Without names: all of them. A cell that fails ends it with its traceback, and the notebook stays as it was. Left
out is what differs from one run to the next without saying anything: timings, what commands say of their progress,
paths of temporary folders, the version of Python.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
CELL_SECONDS = 900
"""Longest that a cell may take."""


def execute(notebook: NotebookNode) -> NotebookNode:
    """The notebook with the outputs of a run from start to end, by this Python, in an empty folder.

    Raises `nbclient.exceptions.CellExecutionError` where a cell fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=CELL_SECONDS,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        # The command `faultline` of this Python, also where its environment is not activated.
        commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        client.execute(env={**os.environ, "PATH": commands, "TMPDIR": folder})
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [_clean(output, folder) for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def _clean(output: NotebookNode, folder: str) -> NotebookNode:
    """The output without the paths of temporary folders."""
    temporary = re.compile(rf"{re.escape(folder)}(/faultline-\w+)?/?")
    texts = output.get("data", output)
    for kind, text in texts.items():
        if isinstance(text, str) and (kind == "text" or kind.startswith("text/")):
            texts[kind] = temporary.sub("", text)
    return output


def main() -> None:
    """Runs the notebooks that the command line names."""
    for path in [Path(each) for each in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        nbformat.write(execute(nbformat.read(path, as_version=4)), path)
        sys.stdout.write(f"{path.name}\n")


if __name__ == "__main__":
    main()
