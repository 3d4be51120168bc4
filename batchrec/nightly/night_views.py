"""The nights that explore looks at: finds the files that it opens."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from batchrec.errors import ConfigError
from batchrec.explorer.views import ViewFiles
from batchrec.nightly.archive import HISTORIES, Archive
from batchrec.nightly.registry import ModelRegistry


def night_views(archive: Archive, registry: ModelRegistry, nights: Sequence[date], histories: Path) -> list[ViewFiles]:
    """Return the views of published nights; histories: those that the page shows.

    Raises ConfigError if a night or its model is missing.
    """
    published = archive.dates()
    views = []
    for night in nights:
        report = archive.report(night)
        if night not in published or report is None or not archive.is_intact(night):
            intact = [str(other) for other in published[-10:] if archive.is_intact(other)]
            raise ConfigError(
                f"{archive.folder}: night {night} is not published, or was damaged since. Pass another --night; "
                f"found {', '.join(intact) or 'none'}"
            )
        model = registry.find(report["model"]).folder
        fits = histories == archive.night(night) / HISTORIES
        views.append(ViewFiles(f"Night {night}", model, archive.table(night), fits))
    return views


def histories_of(archive: Archive) -> Path | None:
    """Return the histories that are kept, those of the newest night; None without any."""
    files = [archive.night(night) / HISTORIES for night in archive.dates()]
    return next((file for file in reversed(files) if file.is_file()), None)
