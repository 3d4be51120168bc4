"""The commands: each makes a config of its options, runs one job and prints one report."""

import os
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from batchrec.cli.config_file import DEFAULT_FILE
from batchrec.cli.config_template import template
from batchrec.cli.options import (
    Group,
    JobCommand,
    Text,
    config_of,
    json_option,
    log_format_option,
    options_of,
    path_option,
    target_option,
)
from batchrec.cli.output import echo, print_figures, print_report
from batchrec.cli.precedence import PREFIX, check_environment, option_values, read_defaults
from batchrec.cli.torchrun import is_first_process, is_one_of_several
from batchrec.config import (
    BenchConfig,
    EvaluationConfig,
    PublishingConfig,
    RecommendConfig,
    ScoringConfig,
    SequencesConfig,
    SimilarConfig,
    TrainingConfig,
    VectorsConfig,
)
from batchrec.errors import ConfigError

# Items of a history that recommend shows.
_N_SHOWN = 20

_EXIT_CODES = (
    "Exit codes: 0 done; 1 a bug, with its traceback; 2 wrong use or configuration; 3 input that breaks its contract; "
    "4 a model directory that is damaged or does not fit; 5 the requested device is missing; 6 a gate failed: nothing "
    "was published; 7 locked: another run is active; 8 a database, object store or cluster that "
    "cannot be used; 99 nothing to do; 130 interrupted; 143 terminated."
)


@click.group(cls=Group, context_settings={"max_content_width": 110, "auto_envvar_prefix": PREFIX}, epilog=_EXIT_CODES)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="File with options of the commands, one table per command; batchrec.toml if it exists. See batchrec init.",
)
@click.version_option(package_name="batchrec")
@click.pass_context
def cli(context: click.Context, config: Path | None) -> None:
    """Top-k recommendations for every user, from a log of who watched, bought or played which item, and when.

    Options not given on the command line come from the environment (BATCHREC_SCORE_TOP_K for score --top-k), then
    from batchrec.toml. A variable BATCHREC_... that names no option is an error.
    """
    check_environment(cli, os.environ)
    # run reads its file itself: it has a --config of its own, and reports errors in the file to a monitor.
    if context.invoked_subcommand != "run":
        context.default_map = read_defaults(cli, config)


@cli.command("build-sequences", cls=JobCommand)
@click.option(
    "--ratings",
    type=Text(),
    multiple=True,
    metavar="PATH",
    help="File, folder, glob or URL (s3://, gs://, az://, https://) of CSV, JSON lines (both also .gz, .zst) or "
    "Parquet, or the URL of a table, such as delta:// or postgresql://; may be repeated.  [default: ratings.csv]",
)
@options_of(SequencesConfig)
@path_option("--out", "sequences.parquet", "File to write the histories to.")
@log_format_option
@json_option
@click.pass_context
def build_sequences_command(context: click.Context, /, out: Path, json: bool, **options: Any) -> None:
    """Build each user's history, oldest event first, from a log of events."""
    from batchrec.engines import sequences_builder
    from batchrec.sequences.build import build_sequences

    given = option_values(context)
    config = SequencesConfig(**{name: given[name] for name in options if name != "ratings"})
    ratings = given["ratings"] or ("ratings.csv",)
    print_report(build_sequences(ratings, config, out, sequences_builder(config.engine)), json)


@cli.command("train", cls=JobCommand)
@path_option("--sequences", "sequences.parquet", "Histories to train on.")
@options_of(TrainingConfig)
@path_option("--out", "model", "Model directory to write; it replaces an older one once it is complete.")
@click.option(
    "--track",
    metavar="TARGET",
    help="Where to send the figures of each epoch: tensorboard:FOLDER, or mlflow:URI of a tracking server.",
)
@log_format_option
@json_option
def train_command(sequences: Path, out: Path, track: str | None, json: bool, **options: Any) -> None:
    """Train a SASRec or BERT4Rec encoder on the histories and export it to ONNX."""
    config = TrainingConfig(**options)
    from batchrec.system.resume import open_checkpoint_dir
    from batchrec.training.trackers import tracker
    from batchrec.training.train import train

    with (
        open_checkpoint_dir(out) if is_first_process() else nullcontext() as checkpoint_dir,
        tracker(track, config) if track and is_first_process() else nullcontext() as on_epoch,
    ):
        report = train(sequences, config, out, checkpoint_dir, on_epoch)
    if is_first_process():
        print_report(report, json)


@cli.command("score", cls=JobCommand)
@path_option("--sequences", "sequences.parquet", "Histories of the users to score.")
@path_option("--model", "model", "Model directory.")
@options_of(ScoringConfig)
@target_option("recs.parquet", "Where to publish the recommendations.")
@log_format_option
@json_option
def score_command(sequences: Path, model: Path, out: str, json: bool, **options: Any) -> None:
    """Write the top k items of every user."""
    config = ScoringConfig(**options)
    from batchrec.engines import scoring_engine
    from batchrec.scoring.publish import score_to

    print_report(score_to(out, sequences, model, config, scoring_engine(config.engine)), json)


@cli.command("commit", cls=JobCommand)
@click.argument("shards", type=click.Path(path_type=Path))
@target_option("recs.parquet", "Where to publish the recommendations.")
@options_of(PublishingConfig)
@log_format_option
@json_option
def commit_command(shards: Path, out: str, json: bool, **options: Any) -> None:
    """Check the shards of score --shard in the folder SHARDS, merge them, and publish one table.

    The table is the one that score writes without --shard. Nothing is published if a shard is missing, damaged, or made
    of another model, input, rule table, option or run date.
    """
    from batchrec.scoring.commit import commit

    print_report(commit(shards, out, PublishingConfig(**options)), json)


@cli.command("similar", cls=JobCommand)
@path_option("--model", "model", "Model directory.")
@options_of(SimilarConfig)
@target_option("similar.parquet", "Where to publish the similar items.")
@log_format_option
@json_option
def similar_command(model: Path, out: str, json: bool, **options: Any) -> None:
    """Write the most similar other items of every item of a model."""
    config = SimilarConfig(**options)
    from batchrec.similarity.publish import similar_to

    print_report(similar_to(out, model, config), json)


@cli.command("export-vectors", cls=JobCommand)
@path_option("--sequences", "sequences.parquet", "Histories of the users.")
@path_option("--model", "model", "Model directory.")
@options_of(VectorsConfig)
@path_option("--out", "vectors", "Folder to write items.parquet and users.parquet to.")
@log_format_option
@json_option
def export_vectors_command(sequences: Path, model: Path, out: Path, json: bool, **options: Any) -> None:
    """Write a vector per item and per user, for a vector index.

    The inner product of a user's and an item's vector is the item's score.
    """
    config = VectorsConfig(**options)
    from batchrec.scoring.vectors import export_vectors

    print_report(export_vectors(sequences, model, config, out), json)


@cli.command("evaluate", cls=JobCommand)
@path_option("--sequences", "sequences.parquet", "Histories to train and test on.")
@options_of(EvaluationConfig)
@options_of(TrainingConfig)
@path_option("--out", "evaluation.parquet", "File to write the results to; the report is written next to it as JSON.")
@log_format_option
@json_option
def evaluate_command(sequences: Path, out: Path, json: bool, **options: Any) -> None:
    """Show whether the model beats simple methods on your own log, and by how much.

    The model is trained with the options of train on one part of the log and tested on the events after it.
    """
    if is_one_of_several():
        raise ConfigError("evaluate runs in one process: start it without torchrun")
    evaluation, training = config_of(EvaluationConfig, options), config_of(TrainingConfig, options)
    from batchrec.evaluation.evaluate import evaluate
    from batchrec.evaluation.report_text import format_report

    report = evaluate(sequences, evaluation, training, out)
    if json:
        print_report(report, json)
        return
    echo(format_report(report))


@cli.command("bench")
@options_of(BenchConfig)
@json_option
def bench_command(json: bool, **options: Any) -> None:
    """Measure how long each stage of a night takes on this machine, next to the machine's limits.

    A log of the size of a MovieLens dataset is generated. Each stage runs on it several times, in its own process.
    """
    config = BenchConfig(**options)
    from batchrec.benchmark.bench import bench
    from batchrec.benchmark.report_text import format_report

    report = bench(config)
    if json:
        print_report(report, json)
        return
    echo(format_report(report))


@cli.command("recommend")
@click.argument("items_seen", nargs=-1, metavar="[TITLE_OR_ID]...")
@path_option("--model", "model", "Model directory.")
@path_option("--sequences", "sequences.parquet", "Histories, for --user.")
@options_of(RecommendConfig)
@json_option
def recommend_command(items_seen: tuple[str, ...], model: Path, sequences: Path, json: bool, **options: Any) -> None:
    """Show what the model recommends after the given items, oldest first, or to a user."""
    config = RecommendConfig(**options)
    from batchrec.scoring.recommend import recommend

    shown = recommend(items_seen, model, config, sequences)
    if json:
        print_report(shown, json)
        return
    echo("After")
    newest = shown.history[-_N_SHOWN:]
    if len(newest) < len(shown.history):
        echo(f"      {len(shown.history) - len(newest)} older items, and")
    for item in newest:
        note = "  (unknown to the model)" if item in shown.unknown_to_model else ""
        echo(f"      {item.title or item.item_id}{note}")
    echo("the model recommends")
    for row in shown.recommendations:
        echo(f"{row.rank:4}  {row.title or row.item_id}  ({row.score:.2f})")
        if row.because:
            because = ", ".join(f"{item.title or item.item_id} ({item.lost_score:.2f})" for item in row.because)
            echo(f"      because of {because}")


@cli.command("doctor")
@json_option
def doctor_command(json: bool) -> None:
    """Check this machine: versions, GPU and CUDA libraries, and which device score will use."""
    from batchrec.doctor import diagnose

    report = diagnose()
    if json:
        print_report(report, json)
        return
    figures = asdict(report)
    del figures["problems"], figures["score_runs_on"]
    if report.gpus is None:
        figures["gpus"] = "torch cannot tell"
    print_figures(figures)
    for problem in report.problems:
        echo(f"\n{problem.what}\n  -> {problem.to_do}")
    echo(f"\nscore runs on: {report.score_runs_on}")


@cli.command("init")
@path_option("--out", DEFAULT_FILE, "File to write; an existing file is not changed.")
def init_command(out: Path) -> None:
    """Write a batchrec.toml with every option of every command at its default, commented out."""
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(template(cli))
    except FileExistsError as error:
        raise ConfigError(f"{out}: already exists. Move it away, or pass another --out") from error
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}. Pass another --out") from error
    echo(f"{out}: written. Uncomment the options that you want to change")
