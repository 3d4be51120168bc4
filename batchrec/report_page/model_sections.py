"""The sections on the model: how it was trained, how well it ranks, and its card."""

import json
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import pyarrow.parquet as pq

from batchrec.model.directory import TRAINING_LOG, Manifest, read_manifest
from batchrec.model.metrics import decimals
from batchrec.report_page.blocks import Block, Cell, Charts, Facts, Group, MissingError, Note, Table
from batchrec.report_page.charts import Interval, Point, intervals, lines
from batchrec.report_page.night_files import NightFiles
from batchrec.tables.schemas import made_by

_LIMITS = (
    "It learns from the events of this log only: it does not know prices, stock, or why a user took an item.",
    "A user without a history that the model knows gets popular items.",
    "An item that is not in the model is not recommended until the next training, unless a rule pins it.",
    "NDCG@10 is measured on items that were held out of the log. It compares rankings; it does not predict clicks or "
    "sales, which only an experiment with users measures.",
    "Items that were shown or popular before are more frequent in the log, and so in the lists: see popularity above.",
    "A score orders the items of one user. It is not a probability, and not comparable between users.",
)


def accuracy(files: NightFiles) -> list[Block]:
    """Return how well tonight's models rank the held-out items, next to popularity."""
    models = files.report["models"]
    if not models:
        raise MissingError("The night ended before it measured a model.")
    names = ["in use", "new"] if len(models) > 1 else ["this model"]
    rows: list[list[Cell]] = [
        [
            name,
            model["model_id"],
            model["ndcg_at_10"],
            model["popularity_ndcg_at_10"],
            f"{model['unknown_share']:.2%}",
        ]
        for name, model in zip(names, models, strict=True)
    ]
    columns = ["Model", "Id", "NDCG@10", "Popularity NDCG@10", "Newest events of unknown items"]
    return [Table("Accuracy on tonight's held-out items", columns, rows)]


def training(files: NightFiles) -> list[Block]:
    """Return the curves of the training of the model that made the table, next to popularity."""
    epochs = _epochs(files)
    if not epochs:
        return [Note("The model was trained without an encoder, so it has no epochs.")]
    best = max(epochs, key=lambda epoch: epoch["ndcg_at_10"])
    blocks: list[Block] = [
        Note(
            f"Epochs: {len(epochs)}. Epoch {best['epoch']} ranks the held-out items best. Without the blend its "
            f"NDCG@10 is {best['ndcg_at_10']:.4f}, popularity's {best['popularity_ndcg_at_10']:.4f}; its loss is "
            f"{best['loss']:.4f}."
        )
    ]
    if len(epochs) > 1:
        loss = [Point(epoch["epoch"], epoch["loss"]) for epoch in epochs]
        ndcg = [Point(epoch["epoch"], epoch["ndcg_at_10"], "encoder") for epoch in epochs]
        ndcg += [Point(epoch["epoch"], epoch["popularity_ndcg_at_10"], "popularity") for epoch in epochs]
        drawn = [
            lines("Loss by epoch", loss, ("epoch", "loss")),
            lines("Accuracy of the encoder by epoch", ndcg, ("epoch", "NDCG@10"), is_from_zero=True),
        ]
        blocks.append(Charts(drawn))
    return blocks


def _epochs(files: NightFiles) -> list[dict[str, Any]]:
    """Read what the model recorded of its training. Raises MissingError if the record is lost or damaged."""
    manifest = _manifest(files)
    record = files.model / TRAINING_LOG if files.model else None
    contents = record.read_bytes() if record is not None and record.is_file() else b""
    if sha256(contents).hexdigest() != manifest.files.get(TRAINING_LOG):
        raise MissingError(f"The record of the training, {TRAINING_LOG} of the model, is lost or damaged.")
    return [json.loads(line) for line in contents.decode().splitlines()]


def _manifest(files: NightFiles) -> Manifest:
    """Read the manifest of the night's model. Raises MissingError without a model, ModelError if it is damaged."""
    if files.model is None:
        raise MissingError("The model of this night is not kept, or none was chosen.")
    return read_manifest(files.model)


def evaluation(files: NightFiles) -> list[Block]:
    """Return the results of evaluate, with their intervals."""
    assert files.evaluation is not None  # noqa: S101 - the section is left out without it
    try:
        report: Any = json.loads(files.evaluation.read_text(encoding="utf-8"))
        methods = report["methods"]
        gains = [
            Interval(method["method"], method["ndcg"], method["ndcg_low"], method["ndcg_high"]) for method in methods
        ]
        metrics = ("ndcg", "hit_rate", "recall", "mrr")
        rows: list[list[Cell]] = [
            [
                method["method"],
                *(
                    f"{decimals(method[name])} [{decimals(method[name + '_low'])}, {decimals(method[name + '_high'])}]"
                    for name in metrics
                ),
                f"{method['coverage']:.1%}",
                None if method["mean_popularity_rank"] is None else round(method["mean_popularity_rank"], 1),
            ]
            for method in methods
        ]
        facts: list[tuple[str, Cell]] = [
            ("Question", report["question"]),
            ("Users tested", report["users_tested"]),
            ("Test items", report["test_items"]),
            ("k", report["k"]),
            ("Best simple method", report["best_baseline"]),
        ]
        chart = intervals("NDCG with 95 % intervals", gains, f"NDCG@{report['k']}")
        notes = [Note(f"{verdict}.") for verdict in report["verdicts"]]
        if report["model"] is not None:
            model_id = report["model"]["model_id"]
            notes.append(Note(f"The model of this section is {model_id}, which was trained without the test items."))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise MissingError(
            f"{files.evaluation}: cannot be read as the JSON that batchrec evaluate writes ({type(error).__name__})."
        ) from error
    columns = ["Method", "NDCG", "Hit rate", "Recall", "MRR", "Coverage", "Popularity rank"]
    return [Facts(facts), *notes, Charts([chart]), Table("Each method, with 95 % intervals", columns, rows)]


def model_card(files: NightFiles) -> list[Block]:
    """Return what the table is made of: data, sizes, options, checksums, version and limits."""
    manifest = _manifest(files)
    data = files.stage("build-sequences")
    shape = manifest.encoder
    encoder: list[tuple[str, Cell]] = [
        ("Layers, hidden size, heads", f"{shape['n_layers']}, {shape['hidden_size']}, {shape['n_heads']}"),
        ("Events of a history that the encoder reads", f"the newest {shape['max_len']}"),
    ]
    facts: list[tuple[str, Cell]] = [
        ("Events", data["events"]),
        ("Oldest event", f"{data['oldest']} UTC"),
        ("Newest event", f"{data['newest']} UTC"),
        ("Users", data["users"]),
        ("Items", data["items"]),
        ("Rows rejected", sum(data["rejected"].values())),
        ("Model", files.report["model"] or manifest.model_id),
        ("Items that the model knows", manifest.n_items),
        ("Encoder", shape["objective"] if manifest.has_embeddings else "none: simple signals only"),
        *(encoder if manifest.has_embeddings else []),
        ("Blend", "yes" if manifest.blend else "none: the score is the encoder's"),
        ("batchrec that wrote this page", version("batchrec")),
    ]
    options: list[list[Cell]] = [["train", *_option(item)] for item in manifest.config.items()]
    metadata = {} if files.recs is None else pq.read_schema(files.recs).metadata or {}
    if b"batchrec.made_by" in metadata:
        options += [["score", *_option(item)] for item in made_by(metadata).items()]
    checksums: list[list[Cell]] = [["recs.parquet", files.report["recs_sha256"]]]
    similar = files.stages.get("similar", {}).get("sha256")
    checksums += [["similar.parquet", similar]] if similar else []
    checksums += [[f"model: {name}", digest] for name, digest in manifest.files.items()]
    return [
        Facts(facts),
        Group("Limits", [Note(limit) for limit in _LIMITS]),
        Table("Options that the table depends on", ["Job", "Option", "Value"], options, is_folded=True),
        Table("SHA-256 of the files", ["File", "SHA-256"], checksums, is_folded=True),
    ]


def _option(item: tuple[str, Any]) -> tuple[str, str]:
    name, value = item
    return name.replace("_", "-"), value if isinstance(value, str) else json.dumps(value)
