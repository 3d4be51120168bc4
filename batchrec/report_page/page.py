"""The page of a night: one HTML file that needs no network and no script."""

import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa

from batchrec.errors import BatchrecError, ConfigError, one_line
from batchrec.report_page.blocks import Badge, Block, MissingError, Note, Section
from batchrec.report_page.cells import is_numeric, shown, shown_rows
from batchrec.report_page.model_sections import accuracy, evaluation, model_card, training
from batchrec.report_page.night_files import NightFiles, NightTables
from batchrec.report_page.night_sections import gates, summary, trend
from batchrec.report_page.sample_users import sample_users
from batchrec.report_page.table_sections import changes, coverage, histories, popularity, sources
from batchrec.report_page.templating import template_environment
from batchrec.system.atomic import PAGE, check_writable_file, replacing
from batchrec.system.stores import needs_extra
from batchrec.tables.queries import connect

if sys.platform != "win32":
    import resource


# The drawing library reserves most of this, and ends the process if it cannot.
_ADDRESS_SPACE = 128 << 30


def check_installed() -> None:
    """Raise ConfigError if the packages of the extra report are missing, or if they would end this process."""
    with needs_extra("report", "report"):
        import jinja2  # noqa: F401
        import vl_convert  # noqa: F401
    if sys.platform != "win32":
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY and limit < _ADDRESS_SPACE:
            raise ConfigError(
                f"report: addresses are limited to {limit / 2**30:.1f} GiB (ulimit -v); expected at least "
                f"{_ADDRESS_SPACE >> 30}. Raise that limit, or limit the memory by a cgroup"
            )


def write_page(files: NightFiles, out: Path, spill_folder: Path | None = None) -> None:
    """Write the page of a night; it replaces an older one in one step.

    A section whose files are missing or damaged says so. spill_folder: for queries that exceed memory; default: that of
    `out`. Raises ConfigError if `out` cannot be written, or as check_installed does.
    """
    check_installed()
    check_writable_file(out, kind=PAGE)
    with connect(spill_folder or out.parent) as con:
        html = _html(files, _sections(NightTables(con, files)))
    with replacing(out) as temporary:
        # A file's name in an error message may hold bytes that are not UTF-8.
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")


def _sections(tables: NightTables) -> list[Section]:
    files = tables.files
    sections = [
        _section("night", "Night", lambda: summary(files)),
        _section("gates", "Gates", lambda: gates(files)),
        _section("changes", "Changes", lambda: changes(tables)),
        _section("trend", "Last nights", lambda: trend(files)),
        _section("users", "Sample users", lambda: sample_users(tables)),
        _section("coverage", "Coverage", lambda: coverage(tables)),
        _section("sources", "Sources", lambda: sources(tables)),
        _section("popularity", "Popularity", lambda: popularity(tables)),
        _section("histories", "Histories", lambda: histories(tables)),
        _section("model", "Model", lambda: accuracy(files)),
        _section("training", "Training", lambda: training(files)),
    ]
    if files.evaluation is not None:
        sections.append(_section("evaluation", "Evaluation", lambda: evaluation(files)))
    return [*sections, _section("card", "Model card", lambda: model_card(files))]


def _section(anchor: str, title: str, blocks: Callable[[], list[Block]]) -> Section:
    """Make a section. If what it shows is missing or damaged, it says so."""
    try:
        return Section(anchor, title, blocks())
    except MissingError as error:
        return Section(anchor, title, [Note(f"Missing. {error}")])
    except KeyError as error:
        return Section(anchor, title, [Note(f"Missing. The report of a night lacks {error}.")])
    except (BatchrecError, OSError, duckdb.Error, pa.ArrowException) as error:
        return Section(anchor, title, [Note(f"Missing. {one_line(error)}")])


def _html(files: NightFiles, sections: list[Section]) -> str:
    environment = template_environment()
    environment.filters["shown"] = shown
    environment.filters["shown_rows"] = shown_rows
    environment.tests["numeric"] = is_numeric
    environment.tests["badge"] = lambda cell: isinstance(cell, Badge)
    return environment.get_template("page.html").render(report=files.report, sections=sections)
