"""The commands of the night: run it, and go back to an earlier table or model."""

import os
import re
from dataclasses import asdict, fields
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrec.cli.commands import EPILOG, cli
from batchrec.cli.config_file import DEFAULT_FILE
from batchrec.cli.defaults import read_defaults, resolve_options
from batchrec.cli.options import JobCommand, json_option, last_value, log_format_option, options_of
from batchrec.cli.output import echo, print_figures, print_report
from batchrec.config import RunConfig, ScoringConfig, SequencesConfig, TrainingConfig
from batchrec.errors import BatchrecError, ConfigError, ModelError
from batchrec.system.signals import Terminated, can_resume, ignore_signals

if TYPE_CHECKING:
    from batchrec.nightly.registry import Models
    from batchrec.nightly.stages import Jobs


class _Date(click.ParamType[date]):
    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            return value if isinstance(value, date) else date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date; expected one like 2026-11-24", param, ctx)


def _read_config(context: click.Context, _option: click.Parameter, file: Path | None) -> None:
    root = context.find_root()
    if isinstance(root.obj, ConfigError) and root.params.get("config") is not None:
        raise root.obj
    if file is not None:
        root.default_map = read_defaults(cli, file)
        context.default_map = (root.default_map or {}).get("run")
    elif isinstance(root.obj, ConfigError):
        raise root.obj


class _RunCommand(JobCommand):
    """The command run: a monitor is told of options that cannot be used, too."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Make the context as click does, but write to the metrics file if that fails."""
        given = list(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except (ConfigError, click.ClickException):
            file = _metrics_file(given, parent)
            if file is not None and "--dry-run" not in given:
                from batchrec.nightly.prometheus import tell_failure

                tell_failure(file, ConfigError.exit_code)
            raise


# Whatever else is wrong with the file of options: a line that sets it, and is no comment.
_METRICS_FILE = re.compile(r"""^[^#\n]*\bmetrics[-_]file["']?[ \t]*=[ \t]*(["'])(.+?)\1""", re.MULTILINE)


def _metrics_file(arguments: list[str], group: click.Context | None) -> Path | None:
    """Find the metrics file of a run whose options cannot be used: by command line, environment, or batchrec.toml."""
    name = last_value("--metrics-file", arguments) or os.environ.get("BATCHREC_RUN_METRICS_FILE")
    if name:
        return Path(name)
    of_group = group.params.get("config") if group is not None else None
    config = last_value("--config", arguments) or os.environ.get("BATCHREC_RUN_CONFIG") or of_group or DEFAULT_FILE
    try:
        found = _METRICS_FILE.search(Path(config).read_text(encoding="utf-8-sig", errors="replace"))
    except OSError:
        return None
    return None if found is None else Path(found[2])


@cli.command("run", cls=_RunCommand, epilog=EPILOG)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    # Eager: the other options are looked up in it.
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="The same as batchrec --config.",
)
@click.option(
    "--run-date", type=_Date(), metavar="YYYY-MM-DD", help="Night to make the table of; today's (UTC) if not given."
)
@options_of(RunConfig)
@click.option("--metrics-file", type=click.Path(path_type=Path), help="File for a monitor, in Prometheus' text format.")
@click.option("--dry-run", is_flag=True, default=False, help="Say what would be done and why, and do nothing.")
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
    """Make tonight's table and publish it, or leave last night's as it is and say why.

    Builds the histories, trains if that is due, scores, and publishes what passes the gates at score's --out. Started
    again after a crash it goes on where it stopped. How each job is done stands in batchrec.toml, or the environment.
    """
    from batchrec.nightly.prometheus import failures_told

    with failures_told(None if dry_run else metrics_file):
        config = RunConfig(**options)
        jobs = _jobs(context)
    from batchrec.nightly.run import plan, run

    if dry_run:
        print_report(plan(jobs, config, run_date), json)
        return
    try:
        with can_resume():
            report = run(jobs, config, run_date, metrics_file)
            # The night is published, whatever comes while its report is printed.
            ignore_signals()
    except (BatchrecError, Terminated) as error:
        if json and error.report is not None:
            print_report(error.report, json)
        raise
    if json:
        print_report(report, json)
        return
    print_figures({name: value for name, value in asdict(report).items() if not isinstance(value, dict | list)})
    for check in report.checks:
        echo(f"{check['gate'] + ' gate':30} {check['figure']}: {check['value']:.6g}")


def _jobs(context: click.Context) -> "Jobs":
    """Make the jobs of a night from the environment and the file."""
    from batchrec.nightly.stages import Jobs

    values = {name: resolve_options(context, name) for name in ("build-sequences", "train", "score")}

    def config(config_class: Any, command: str) -> Any:
        return config_class(**{field.name: values[command][field.name] for field in fields(config_class)})

    return Jobs(
        ratings=values["build-sequences"]["ratings"] or ("ratings.csv",),
        sequences=config(SequencesConfig, "build-sequences"),
        training=config(TrainingConfig, "train"),
        scoring=config(ScoringConfig, "score"),
        out=values["score"]["out"],
    )


@cli.command("rollback", epilog=EPILOG)
@click.option("--to", type=_Date(), metavar="YYYY-MM-DD", help="Night to go back to; the one before if not given.")
@click.pass_context
def rollback_command(context: click.Context, to: date | None) -> None:
    """Put the table of an earlier night back in its place, at score's --out."""
    from batchrec.nightly.archive import Nights
    from batchrec.nightly.lock import locked

    options = resolve_options(context, "run")
    nights = Nights(Path(options["nights"]), resolve_options(context, "score")["out"])
    with locked(nights.folder, options["lock"]):
        echo(f"{nights.out}: the table of {nights.roll_back(to)}")


@cli.group("models", epilog=EPILOG)
def models_group() -> None:
    """List and show the models of the nights, go back to an earlier one, or delete old ones."""


@models_group.command("list")
@click.pass_context
def models_list_command(context: click.Context) -> None:
    """List the models, oldest first, and mark the one in use."""
    models = _models(context)
    try:
        current = models.current
    except ModelError as error:
        echo(str(error))
        current = None
    for version in models.versions():
        try:
            ndcg = version.manifest.metrics.get("ndcg_at_10")
            said = "NDCG@10 not measured" if ndcg is None else f"NDCG@10 {ndcg:.4f}"
        except ModelError as error:
            said = str(error)
        echo(f"{'*' if version == current else ' '} {version.name}  {said}")


@models_group.command("show")
@click.argument("name", required=False)
@json_option
@click.pass_context
def models_show_command(context: click.Context, name: str | None, json: bool) -> None:
    """Show what a model is: its options and its accuracy; of the one in use if no other is named."""
    models = _models(context)
    print_report((models.find(name) if name else models.in_use()).manifest, json)


@models_group.command("rollback")
@click.argument("name", required=False)
@click.pass_context
def models_rollback_command(context: click.Context, name: str | None) -> None:
    """Put an earlier model in use: the one before, if no other is named."""
    from batchrec.nightly.lock import locked

    options, models = resolve_options(context, "run"), _models(context)
    nights = Path(options["nights"])
    with locked(nights, options["lock"]):
        _check_settled(nights)
        version = models.find(name) if name else models.before_current()
        models.use(version)
        echo(f"{models.folder}: {version.name} is in use")


def _check_settled(nights: Path) -> None:
    """Raise ConfigError if a run was killed while it published: the next one would switch the model again."""
    from batchrec.nightly.decisions import Decisions

    decided = Decisions(nights).dates()
    if decided:
        raise ConfigError(
            f"{nights}: a run was killed while it published night {decided[0]}. Start batchrec run, which does that "
            "first, or batchrec rollback, which gives it up"
        )


@models_group.command("prune")
@click.option("--keep", type=int, help="Models to keep beside the one in use; run's --keep-models if not given.")
@click.pass_context
def models_prune_command(context: click.Context, keep: int | None) -> None:
    """Delete all but the newest models and the one in use."""
    from batchrec.nightly.lock import locked

    options = resolve_options(context, "run")
    config = RunConfig(keep_models=options["keep_models"] if keep is None else keep)
    with locked(Path(options["nights"]), options["lock"]):
        for name in _models(context).prune(config.keep_models):
            echo(f"{name}: deleted")


def _models(context: click.Context) -> "Models":
    from batchrec.nightly.registry import Models

    return Models(Path(resolve_options(context, "run")["models"]))
