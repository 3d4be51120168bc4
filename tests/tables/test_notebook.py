"""DuckDB in a notebook without ipywidgets, which refuses the setting of its progress bar."""

import subprocess
import sys

NOTEBOOK = """
import sys
from types import ModuleType, SimpleNamespace

ipython = sys.modules["IPython"] = ModuleType("IPython")
ipython.get_ipython = lambda: SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["ipywidgets"] = None
"""
QUERY = """
from batchrec.tables.queries import connect

with connect() as con:
    print(con.execute("select current_setting('enable_progress_bar')").fetchall())
"""


def test_queries_run_in_a_notebook_without_widgets_and_draw_no_bar() -> None:
    # DuckDB looks for a notebook once, when it is loaded.
    done = subprocess.run([sys.executable, "-c", NOTEBOOK + QUERY], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[(False,)]\n", "")
