"""The examples at the end of each command's help; tests parse each of them."""

# Command, "" for batchrec itself -> command lines.
EXAMPLES = {
    "": (
        "batchrec build-sequences --ratings ratings.csv",
        "batchrec train",
        "batchrec score --out recs.parquet",
    ),
    "build-sequences": (
        "batchrec build-sequences --ratings plays/ --user-column listener --item-column track",
        "batchrec build-sequences --query events.sql --since 90d",
    ),
    "train": ("batchrec train --max-minutes 30", "batchrec train --objective masked --out masked-model"),
    "score": (
        "batchrec score --top-k 20 --items movies.csv",
        "batchrec score --block out-of-stock.csv --out s3://bucket/recs/",
    ),
    "commit": ("batchrec commit shards --out recs.parquet",),
    "similar": ("batchrec similar --top-k 12 --out similar.parquet",),
    "export-vectors": ("batchrec export-vectors --out vectors",),
    "evaluate": ("batchrec evaluate", "batchrec evaluate --protocol temporal --test-days 14 --recs theirs.csv"),
    "bench": ("batchrec bench --shape ml-1m",),
    "recommend": (
        'batchrec recommend "Toy Story (1995)" Heat --items movies.csv',
        "batchrec recommend --user 42 --why",
    ),
    "doctor": ("batchrec doctor",),
    "init": ("batchrec init",),
    "run": ("batchrec run --dry-run", "batchrec run --run-date 2026-11-24"),
    "rollback": ("batchrec rollback --to 2026-11-20",),
    "models": ("batchrec models list", "batchrec models show"),
    "models list": ("batchrec models list",),
    "models show": ("batchrec models show --json",),
    "models rollback": ("batchrec models rollback",),
    "models prune": ("batchrec models prune --keep 3",),
    "nights": ("batchrec nights",),
    "report": ("batchrec report --run-date 2026-11-24 --out night.html",),
    "diff": ("batchrec diff", "batchrec diff 2026-11-23 2026-11-24", "batchrec diff before.parquet after.parquet"),
    "tune": ("batchrec tune --max-minutes 60", "batchrec tune --search objective --write"),
    "explore": ("batchrec explore", "batchrec explore --model model --model masked-model --items movies.csv"),
    "inspect": ("batchrec inspect ratings.csv", "batchrec inspect nights --json"),
}
