"""The commands of the night: run it, and roll back to an earlier table or model."""

import os
import re
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrec.cli.commands import cli
from batchrec.cli.config_file import DEFAULT_FILE
from batchrec.cli.options import (
    SEE_EXIT_CODES,
    Date,
    Group,
    JobCommand,
    config_of,
    json_option,
    last_value,
    log_format_option,
    options_of,
)
from batchrec.cli.output import echo, print_figures, print_report
from batchrec.cli.precedence import read_defaults, resolve_options, variable_of
from batchrec.config import CatalogueConfig, RunConfig, ScoringConfig, SequencesConfig, SimilarConfig, TrainingConfig
from batchrec.errors import BatchrecError, ConfigError, ModelError
from batchrec.system.signals import Terminated, can_resume, ignore_signals

if TYPE_CHECKING:
    from batchrec.nightly.archive import Archive
    from batchrec.nightly.jobs import Jobs
    from batchrec.nightly.registry import ModelRegistry


class _RunCommand(JobCommand):
    """The command run: it takes a --config of its own, and reports unusable options to a monitor."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Make the context as click does; if that fails, write to the metrics file."""
        given = list(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except (ConfigError, click.ClickException):
            file = _metrics_file(given, parent)
            if file is not None and "--dry-run" not in given:
                from batchrec.nightly.prometheus import write_failure

                write_failure(file, ConfigError.exit_code)
            raise

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the file of options, then parse as click does."""
        if ctx.resilient_parsing or set(ctx.help_option_names) & set(args):
            return super().parse_args(ctx, args)
        root, own = ctx.find_root(), _own_config_file(args)
        of_group: Path | None = root.params["config"]
        # Other commands ask for the options of run too: batchrec has read its file for them.
        if own is not None or root.invoked_subcommand == self.name:
            try:
                if own is not None and of_group is not None:
                    # It is replaced, but must not be missing or broken.
                    read_defaults(cli, of_group)
                root.default_map = read_defaults(cli, own or of_group)
            except ConfigError:
                self.set_log_format(ctx, args)
                raise
            ctx.default_map = (root.default_map or {}).get("run")
        return super().parse_args(ctx, args)


def _own_config_file(arguments: list[str]) -> Path | None:
    """Return the file of options that run itself is given, by command line or environment."""
    name = last_value("--config", arguments)
    if name is None:
        name = os.environ.get(variable_of("run", "config")) or None
    return None if name is None else Path(name)


# Matches also in a file that is not TOML: a line that sets the option and is not a comment.
_METRICS_FILE = re.compile(r"""^[^#\n]*\bmetrics[-_]file["']?[ \t]*=[ \t]*(["'])(.+?)\1""", re.MULTILINE)


def _metrics_file(arguments: list[str], group: click.Context | None) -> Path | None:
    """Return the metrics file of a run with unusable options: from command line, environment or batchrec.toml."""
    name = last_value("--metrics-file", arguments) or os.environ.get(variable_of("run", "metrics_file"))
    if name:
        return Path(name)
    of_group = group.params.get("config") if group is not None else None
    config = _own_config_file(arguments) or of_group or Path(DEFAULT_FILE)
    try:
        match = _METRICS_FILE.search(config.read_text(encoding="utf-8-sig", errors="replace"))
    except OSError:
        return None
    return None if match is None else Path(match[2])


@cli.command("run", cls=_RunCommand)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    # Read by _RunCommand, before the other options take their defaults from the file.
    expose_value=False,
    help="Same as batchrec --config.",
)
@click.option("--run-date", type=Date(), metavar="YYYY-MM-DD", help="Date of the night to run. Default: today (UTC).")
@options_of(RunConfig)
@click.option(
    "--metrics-file", type=click.Path(path_type=Path), help="File to write metrics to, in Prometheus text format."
)
@click.option("--dry-run", is_flag=True, default=False, help="Print what the run would do and why, and do nothing.")
@log_format_option
@json_option
@click.pass_context
def run_command(
    context: click.Context,
    /,
    run_date: date | None,
    metrics_file: Path | None,
    dry_run: bool,
    json: bool,
    **options: Any,
) -> None:
    """Make tonight's table and publish it, or keep last night's and say why.

    Builds the histories, retrains the model if that is due, scores, and publishes the table at score's --out if it
    passes the gates. Run again after a crash, it resumes. The options of each job come from batchrec.toml or the
    environment.
    """
    from batchrec.nightly.prometheus import reporting_failures

    with reporting_failures(None if dry_run else metrics_file):
        config = RunConfig(**options)
        jobs = _jobs(context)
    from batchrec.nightly.report import format_checks
    from batchrec.nightly.run import plan, run

    if dry_run:
        print_report(plan(jobs, config, run_date), json)
        return
    try:
        with can_resume():
            report = run(jobs, config, run_date, metrics_file)
            # The night is published: a signal while its report is printed changes nothing.
            ignore_signals()
    except (BatchrecError, Terminated) as error:
        if json and error.report is not None:
            print_report(error.report, json)
        raise
    if json:
        print_report(report, json)
        return
    print_figures({name: value for name, value in asdict(report).items() if not isinstance(value, dict | list)})
    echo(f"\n{format_checks(report.checks)}")


def _jobs(context: click.Context) -> "Jobs":
    """Make the jobs of a night from their options in the environment and the file."""
    from batchrec.nightly.jobs import Jobs

    sequences, train, score, similar = (
        resolve_options(context, name) for name in ("build-sequences", "train", "score", "similar")
    )
    scoring = config_of(ScoringConfig, score)
    return Jobs(
        ratings=sequences["ratings"] or ("ratings.csv",),
        sequences=config_of(SequencesConfig, sequences),
        training=config_of(TrainingConfig, train).for_lists_of(scoring),
        scoring=scoring,
        out=score["out"],
        similar=config_of(SimilarConfig, similar),
        similar_out=similar["out"],
    )


@cli.command("rollback")
@click.option("--to", type=Date(), metavar="YYYY-MM-DD", help="Night to roll back to. Default: the previous one.")
@click.pass_context
def rollback_command(context: click.Context, to: date | None) -> None:
    """Publish the table of an earlier night again at score's --out."""
    from batchrec.nightly.lock import locked
    from batchrec.nightly.rollback import roll_back

    archive = open_archive(context)
    with locked(archive.folder, resolve_options(context, "run")["lock"]):
        echo(f"{archive.current}: now the table of {roll_back(archive, to)}")


@cli.group("models", cls=Group, epilog=SEE_EXIT_CODES)
def models_group() -> None:
    """List and show the models of the nights, roll back to an earlier one, or delete old ones."""


@models_group.command("list")
@click.pass_context
def models_list_command(context: click.Context) -> None:
    """List the models, oldest first, with a mark at the one in use."""
    registry = open_registry(context)
    try:
        current = registry.current
    except ModelError as error:
        echo(str(error))
        current = None
    for version in registry.versions():
        try:
            ndcg = version.manifest.metrics.get("ndcg_at_10")
            accuracy = "NDCG@10 not measured" if ndcg is None else f"NDCG@10 {ndcg:.4f}"
        except ModelError as error:
            accuracy = str(error)
        echo(f"{'*' if version == current else ' '} {version.name}  {accuracy}")


@models_group.command("show")
@click.argument("name", required=False)
@json_option
@click.pass_context
def models_show_command(context: click.Context, name: str | None, json: bool) -> None:
    """Show a model's options and accuracy; the model in use if no other is named."""
    registry = open_registry(context)
    print_report((registry.find(name) if name else registry.in_use()).manifest, json)


@models_group.command("rollback")
@click.argument("name", required=False)
@click.pass_context
def models_rollback_command(context: click.Context, name: str | None) -> None:
    """Use an earlier model: the previous one if no other is named."""
    from batchrec.nightly.lock import locked

    options, registry = resolve_options(context, "run"), open_registry(context)
    nights = Path(options["nights"])
    with locked(nights, options["lock"]):
        _check_settled(nights)
        version = registry.find(name) if name else registry.before_current()
        registry.use(version)
        echo(f"{registry.folder}: {version.name} is in use")


def _check_settled(nights: Path) -> None:
    """Raise ConfigError if a run was killed while it published: the next run would switch the model again."""
    from batchrec.nightly.decisions import Decisions

    decided = Decisions(nights).dates()
    if decided:
        raise ConfigError(
            f"{nights}: a run was killed while it published night {decided[0]}. Start batchrec run, which publishes "
            "it first, or batchrec rollback, which discards it"
        )


@models_group.command("prune")
@click.option(
    "--keep", type=int, help="Number of models to keep in addition to the one in use. Default: run's --keep-models."
)
@click.pass_context
def models_prune_command(context: click.Context, keep: int | None) -> None:
    """Delete all but the newest models and the one in use."""
    from batchrec.nightly.lock import locked

    options = resolve_options(context, "run")
    config = RunConfig(keep_models=options["keep_models"] if keep is None else keep)
    with locked(Path(options["nights"]), options["lock"]):
        for name in open_registry(context).prune(config.keep_models):
            echo(f"{name}: deleted")


def open_archive(context: click.Context) -> "Archive":
    """Return the archive of the nights, by the options of run, score and similar."""
    from batchrec.nightly.archive import Archive
    from batchrec.targets import open_target

    options, scoring = resolve_options(context, "run"), resolve_options(context, "score")
    similar = open_target(resolve_options(context, "similar")["out"], "similar") if options["similar"] else None
    return Archive(Path(options["nights"]), open_target(scoring["out"], scoring["layout"]), similar)


def catalogue_of(context: click.Context) -> CatalogueConfig:
    """Return where score reads the titles of items from."""
    return config_of(CatalogueConfig, resolve_options(context, "score"))


def open_registry(context: click.Context) -> "ModelRegistry":
    """Return the registry of the models of the nights, by the options of run."""
    from batchrec.nightly.registry import ModelRegistry

    return ModelRegistry(Path(resolve_options(context, "run")["models"]))
