"""Bad inputs of a shop, one per row, each with the exit code and the error line that it must give."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NIGHT = "nights/run_date=2024-03-01"
MODEL = "models/current"
RUN = "run --run-date 2024-03-02"
BACK = "rollback --to 2024-03-01"
NOT_PUBLISHED = "recs.parquet: is not the table that was published: .* its report is lost"
SCORING = f"score --model {MODEL} --sequences {NIGHT}/recs.parquet"
HEADER = "userId,movieId,timestamp\n"

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Bad:
    """A change of a shop's folder, a command, and the exit code and error line with which the command must end."""

    what: str
    change: Change
    command: str
    exit_code: int
    said: str


def nothing(_shop: Path) -> None:
    """Leave the folder as it is."""


def file(name: str, contents: str | bytes) -> Change:
    """Write a file, in place of any file or folder of that name."""

    def change(shop: Path) -> None:
        lost(name)(shop)
        (shop / name).write_bytes(contents.encode() if isinstance(contents, str) else contents)

    return change


def lost(*names: str) -> Change:
    def change(shop: Path) -> None:
        for name in names:
            path = shop / name
            if path.is_dir() and not path.is_symlink():
                path.rename(shop.parent / f"lost-{path.name}")
            else:
                path.unlink(missing_ok=True)

    return change


def folder(name: str) -> Change:
    """Make an empty folder, in place of any file or folder of that name."""

    def change(shop: Path) -> None:
        lost(name)(shop)
        (shop / name).mkdir()

    return change


def link(name: str, to: str) -> Change:
    def change(shop: Path) -> None:
        lost(name)(shop)
        (shop / name).symlink_to(to)

    return change


def edited(name: str, old: str, new: str) -> Change:
    """Replace the first match of a regular expression in a file."""

    def change(shop: Path) -> None:
        text = (shop / name).read_text(encoding="utf-8")
        found, times = re.subn(old, new, text, count=1)
        assert times == 1
        (shop / name).write_text(found, encoding="utf-8")

    return change


def flipped(name: str, share: float = 0.5) -> Change:
    """Change one bit of a file."""

    def change(shop: Path) -> None:
        contents = bytearray((shop / name).read_bytes())
        contents[int(share * len(contents))] ^= 1
        lost(name)(shop)
        (shop / name).write_bytes(contents)

    return change


def option(table: str, line: str) -> Change:
    """Add a line to a table of batchrec.toml, and remove any line with the same key."""

    def change(shop: Path) -> None:
        path, key = shop / "batchrec.toml", line.partition(" ")[0]
        text = path.read_text(encoding="utf-8")
        head, start, rest = text.partition(f"[{table}]\n")
        own, following, others = rest.partition("\n[")
        kept = [row for row in own.splitlines() if not row.startswith(f"{key} =")]
        path.write_text("\n".join([f"{head}{start}{line}", *kept]) + following + others, encoding="utf-8")

    return change


def both(*changes: Change) -> Change:
    def change(shop: Path) -> None:
        for one in changes:
            one(shop)

    return change


def log(contents: str | bytes) -> Change:
    return file("ratings.csv", contents)


def toml(contents: str | bytes) -> Change:
    return file("batchrec.toml", contents)


def more(line: str) -> Change:
    """Add a line to the log."""

    def change(shop: Path) -> None:
        with (shop / "ratings.csv").open("a", encoding="utf-8") as opened:
            opened.write(f"{line}\n")

    return change


def half_the_log(shop: Path) -> None:
    rows = (shop / "ratings.csv").read_text(encoding="utf-8").splitlines()
    log("\n".join(rows[: len(rows) // 3]))(shop)


LOGS = [
    Bad("no log", lost("ratings.csv"), RUN, 3, "ratings.csv: no file found; expected a file, a folder or a glob"),
    Bad("an empty log", log(""), RUN, 3, "ratings.csv: the file is empty; expected a header"),
    Bad("a log of empty lines", log("\n\n\n"), RUN, 3, "ratings.csv: the file is empty"),
    Bad("only a header", log(HEADER), RUN, 3, "ratings.csv: no event is left"),
    Bad("a folder in place of the log", folder("ratings.csv"), RUN, 3, "ratings.csv: no file found; .* a folder with"),
    Bad("no userId", edited("ratings.csv", "userId", "who"), RUN, 3, "no column 'userId'; found who, .*--user-column"),
    Bad("no movieId", edited("ratings.csv", "movieId", "what"), RUN, 3, "no column 'movieId'.*--item-column"),
    Bad(
        "no timestamp", edited("ratings.csv", "timestamp", "when"), RUN, 3, "no column 'timestamp'.*--timestamp-column"
    ),
    Bad("two user columns", log("userId,userId,movieId,timestamp\n1,1,2,3\n"), RUN, 3, "2 columns 'userId'"),
    Bad("a text as time", more("1,1000,yesterday"), RUN, 3, r"line \d+: unreadable time: 'yesterday'.*--max-bad-rows"),
    Bad("an infinite time", more("1,1000,infinity"), RUN, 3, r"line \d+: unreadable time: 'infinity'"),
    Bad("an event without a user", more(",1000,5"), RUN, 3, r"line \d+: no user"),
    Bad("an event without an item", more("1,,5"), RUN, 3, r"line \d+: no item"),
    Bad("a short row", more("1,1000"), RUN, 3, r"line \d+: malformed \(missing columns\)"),
    Bad("a long row", more("1,1000,5,6"), RUN, 3, r"line \d+: malformed \(too many columns\)"),
    Bad("a quote without an end", more('1,"1000,5'), RUN, 3, r"line \d+: malformed"),
    Bad("a log in Latin-1", log(f"{HEADER}1,café,5\n".encode("latin-1")), RUN, 3, "ratings.csv.*line 2.*encoding"),
    Bad("a log in UTF-16", log(f"{HEADER}1,2,3\n".encode("utf-16")), RUN, 3, "ratings.csv: is text in UTF-16"),
    Bad("bytes in place of a log", log(bytes(range(14, 256)) * 99), RUN, 3, "ratings.csv: no column 'userId'"),
    Bad("a third of the log", half_the_log, RUN, 6, "input gate: rows read is .* expected at least .*Nothing was publ"),
    Bad("an old log", nothing, f"{RUN} --gate-max-age-days 3", 6, "days since the newest event is 109, .* at most 3"),
    Bad("a glob without files", option("build-sequences", 'ratings = "no*.csv"'), RUN, 3, r"no\*\.csv: no file found"),
    Bad(
        "a .gz file that is not compressed",
        both(option("build-sequences", 'ratings = "r.csv.gz"'), file("r.csv.gz", HEADER)),
        RUN,
        3,
        "r.csv.gz: no event is left",
    ),
    Bad(
        "a .parquet file that is not Parquet",
        both(option("build-sequences", 'ratings = "r.parquet"'), file("r.parquet", HEADER)),
        RUN,
        3,
        "r.parquet: not a Parquet file",
    ),
    Bad("a missing query", option("build-sequences", 'query = "q.sql"'), RUN, 2, "q.sql"),
    Bad(
        "a query that is not SQL",
        both(option("build-sequences", 'query = "q.sql"'), file("q.sql", "selec 1")),
        RUN,
        2,
        "q.sql: .*syntax error",
    ),
    Bad(
        "a query that deletes",
        both(option("build-sequences", 'query = "q.sql"'), file("q.sql", "drop table x")),
        RUN,
        2,
        "q.sql",
    ),
    Bad(
        "a log and a query",
        both(option("build-sequences", 'query = "q.sql"'), option("build-sequences", 'ratings = "ratings.csv"')),
        RUN,
        2,
        "--ratings and --query exclude each other",
    ),
]

CONFIGS = [
    Bad("not TOML", toml("[run\n"), RUN, 2, "batchrec.toml: not TOML"),
    Bad("not UTF-8", toml(b"# \xe9\n"), RUN, 2, "batchrec.toml: not UTF-8"),
    Bad("a folder as batchrec.toml", folder("batchrec.toml"), RUN, 2, "batchrec.toml: cannot be read: Is a directory"),
    Bad("an unknown command in batchrec.toml", toml("[scores]\n"), RUN, 2, "no command 'scores'; did you mean 'score'"),
    Bad("an unknown key", option("score", "topk = 3"), RUN, 2, "no option 'topk'; did you mean 'top-k'.*expected one"),
    Bad("a value in place of a table", toml("score = 3\n"), RUN, 2, r"score: found 3; expected a table \[score\]"),
    Bad("a text as number", option("score", 'top-k = "many"'), RUN, 2, r"\[score\] top-k: found 'many'; .*an integer"),
    Bad("a boolean as number", option("score", "top-k = true"), RUN, 2, "top-k: found true; expected an integer"),
    Bad("a fraction as top-k", option("score", "top-k = 2.5"), RUN, 2, "top-k: found 2.5; expected an integer"),
    Bad("a list as number", option("train", "max-len = [8]"), RUN, 2, "max-len: found a list; expected an integer"),
    Bad("an unknown device", option("train", 'device = "tpu"'), RUN, 2, "device: found 'tpu'; expected one of auto"),
    Bad("a key twice", option("run", "keep_models = 2"), RUN, 2, "keep-models is set twice|keep_models is set twice"),
    Bad("a top-k of zero", option("score", "top-k = 0"), RUN, 2, "--top-k 0: expected 1 or more"),
    Bad("a top-k of too many", option("score", "top-k = 99"), RUN, 2, "--top-k 99: the model knows 40 items"),
    Bad("an age in years", option("train", 'every = "1y"'), RUN, 2, "--train-every 1y: expected days like 7d"),
    Bad("zero nights to keep", option("run", "keep = 0"), RUN, 2, "--keep 0: expected 1 or more"),
    Bad("a share above 1", option("run", "gate-min-users = 2"), RUN, 2, "--gate-min-users 2.*a number from 0 to 1"),
    Bad("a share of nan", option("run", "gate-min-users = nan"), RUN, 2, "--gate-min-users nan: expected"),
    Bad("some bad rows", option("build-sequences", 'max-bad-rows = "some"'), RUN, 2, "--max-bad-rows some: expected"),
    Bad("a word as memory limit", option("build-sequences", 'memory-limit = "lots"'), RUN, 2, "--memory-limit lots"),
    Bad("0 threads", option("build-sequences", "threads = 0"), RUN, 2, "--threads 0: expected a number from 1 to 1024"),
    Bad("rate of zero", option("train", "learning-rate = 0"), RUN, 2, "--learning-rate 0.*expected more than 0"),
    Bad("3 heads", option("train", "n-heads = 3"), RUN, 2, "--n-heads 3: expected a divisor of --hidden-size 16"),
    Bad("a missing --config", nothing, f"{RUN} --config no.toml", 2, "no.toml: cannot be read: No such file"),
    Bad("a folder as --config", folder("x"), f"{RUN} --config x", 2, "x: cannot be read: Is a directory"),
]

OPTIONS = [
    Bad("a word as date", nothing, "run --run-date yesterday", 2, "'yesterday' is not a date; expected one like"),
    Bad("a date that does not exist", nothing, "run --run-date 2024-02-30", 2, "'2024-02-30' is not a date"),
    Bad("an unknown value of --lock", nothing, f"{RUN} --lock maybe", 2, "'maybe' is not one of 'fail', 'wait'"),
    Bad("a negative number of nights", nothing, f"{RUN} --keep -1", 2, "--keep -1: expected 1 or more"),
    Bad("an unknown option", nothing, f"{RUN} --no-such", 2, "No such option '?--no-such"),
    Bad("a surplus argument", nothing, f"{RUN} surplus", 2, "unexpected extra argument"),
    Bad("a file as nights", nothing, f"{RUN} --nights movies.csv", 2, "movies.csv: cannot be written"),
    Bad("a file as models", nothing, f"{RUN} --models movies.csv", 2, "movies.csv: cannot be used"),
    Bad("no metrics folder", nothing, f"{RUN} --metrics-file no/m.prom", 2, "no/m.prom: folder no does not exist"),
    Bad("a folder as metrics", folder("m.prom"), f"{RUN} --metrics-file m.prom", 2, "m.prom: is a folder"),
    Bad("a folder as table", folder("recs.parquet"), RUN, 2, "recs.parquet: is a folder"),
    Bad("no table folder", option("score", 'out = "no/r"'), RUN, 2, "no/r: folder no does not exist"),
]

MODELS = [
    *(
        Bad(
            f"a changed {name}",
            flipped(f"{MODEL}/{name}", share),
            SCORING,
            4,
            f"{name}.*is not the file that was written",
        )
        for name, share in (
            ("weights.safetensors", 0.9),
            ("encoder.onnx", 0.5),
            ("items.parquet", 0.5),
            ("training.jsonl", 0.5),
        )
    ),
    Bad("a changed manifest", edited(f"{MODEL}/manifest.json", "0", "1"), SCORING, 4, "manifest.json|contract version"),
    Bad(
        "another contract",
        edited(f"{MODEL}/manifest.json", r"version\": \d", 'version": 9'),
        SCORING,
        4,
        "version is 9",
    ),
    Bad("an empty manifest", file(f"{MODEL}/manifest.json", ""), SCORING, 4, "manifest.json: cannot be read"),
    Bad("a manifest that is a list", file(f"{MODEL}/manifest.json", "[]"), SCORING, 4, "manifest.json: cannot be read"),
    Bad("a missing manifest", lost(f"{MODEL}/manifest.json"), SCORING, 4, "manifest.json: cannot be read"),
    Bad("missing weights", lost(f"{MODEL}/weights.safetensors"), SCORING, 4, "cannot read weights.safetensors"),
    Bad("a folder as graph", folder(f"{MODEL}/encoder.onnx"), SCORING, 4, "cannot read encoder.onnx: Is a directory"),
    Bad("a link to a missing model", link(MODEL, "2024-01-01-0"), SCORING, 4, "current: no such model directory"),
    Bad("a folder as link", folder(MODEL), RUN, 4, "current: is not a link to a model"),
    Bad("a file as link", file(MODEL, "x"), RUN, 4, "current: is not a link to a model"),
    Bad("a link to elsewhere", link(MODEL, "../nights"), RUN, 4, "current: links to ../nights"),
]

NIGHTS = [
    Bad("an empty report", file(f"{NIGHT}/report.json", ""), BACK, 2, NOT_PUBLISHED),
    Bad("a report that is a list", file(f"{NIGHT}/report.json", "[]"), BACK, 2, NOT_PUBLISHED),
    Bad("a report without stages", file(f"{NIGHT}/report.json", "{}"), BACK, 2, NOT_PUBLISHED),
    Bad("a missing report", lost(f"{NIGHT}/report.json"), BACK, 2, NOT_PUBLISHED),
    Bad("a folder as report", folder(f"{NIGHT}/report.json"), BACK, 2, NOT_PUBLISHED),
    Bad("a file as night", file("nights/run_date=2024-03-02", ""), RUN, 2, "run_date=2024-03-02: .*no report.json"),
    Bad("a file as work", file("nights/.run_date=2024-03-02", ""), RUN, 2, "run_date=2024-03-02: cannot be used"),
    Bad("a folder as lock", both(lost("nights/.lock"), folder("nights/.lock")), RUN, 2, "nights: cannot be written"),
    Bad("a missing catalogue", lost("movies.csv"), RUN, 3, "movies.csv: no file found.*--items"),
    Bad("an empty catalogue", file("movies.csv", ""), RUN, 3, "movies.csv: the file is empty"),
    Bad("a catalogue without titles", file("movies.csv", "movieId\n1\n"), RUN, 3, "no column 'title'.*--title-column"),
    Bad("a catalogue without rows", file("movies.csv", "movieId,title\n"), RUN, 3, "movies.csv: holds no titles"),
    Bad(
        "a cut catalogue", file("movies.csv", 'movieId,title\n1,"A\n'), RUN, 3, "movies.csv:.*Fix the table of --items"
    ),
    Bad("a missing list of users", option("score", 'users = "u.csv"'), RUN, 3, "u.csv: no file found"),
    Bad(
        "a list of users without rows",
        both(option("score", 'users = "u.csv"'), file("u.csv", "user_id\n")),
        RUN,
        3,
        "u.csv: holds no users",
    ),
]

SEQUENCES = "nights/run_date=2024-03-01/recs.parquet"
COMMANDS = [
    Bad("no earlier night to roll back to", nothing, "rollback", 2, "nights: no earlier night has another table"),
    Bad("an unknown night", nothing, "rollback --to 2020-01-01", 2, "nights: night 2020-01-01 does not exist"),
    Bad("a word as date to roll back to", nothing, "rollback --to x", 2, "'x' is not a date"),
    Bad(
        "a table that belongs to no night",
        file("recs.parquet", "x"),
        "rollback",
        2,
        "is not the table of any night in nights. Pass --to",
    ),
    Bad(
        "a damaged night to roll back to",
        flipped(f"{NIGHT}/recs.parquet"),
        "rollback --to 2024-03-01",
        2,
        "is not the table that was published",
    ),
    Bad("an unknown model", nothing, "models show x", 2, "models: no model 'x'; found 2024-03-01-"),
    Bad("no model in use", lost(MODEL), "models show", 4, "models: no model is in use yet. Run batchrec run"),
    Bad("no earlier model", nothing, "models rollback", 2, "models: no model exists before 2024-03-01-"),
    Bad("a link to elsewhere to roll back from", link(MODEL, "../x"), "models rollback", 4, "current: links to ../x"),
    Bad("zero models to keep", nothing, "models prune --keep 0", 2, "--keep-models 0: expected 1 or more"),
    Bad(
        "a damaged model to show",
        file(f"{MODEL}/manifest.json", "{}"),
        "models show",
        4,
        "manifest.json: cannot be read",
    ),
    Bad("missing ratings", nothing, "build-sequences --ratings no.csv", 3, "no.csv: no file found"),
    Bad("a folder as sequences", nothing, "build-sequences --out models", 2, "models: is a folder"),
    Bad("missing sequences", nothing, "train", 3, "sequences.parquet: no such file. Run batchrec build-sequences"),
    Bad("recs as sequences", nothing, f"train --sequences {SEQUENCES}", 3, "no column 'item_ids'; found user_id"),
    Bad("a log as sequences", nothing, "train --sequences ratings.csv", 3, "ratings.csv: not a Parquet file"),
    Bad("a file as model", nothing, f"score --model ratings.csv --sequences {SEQUENCES}", 4, "no such model directory"),
    Bad("missing sequences to score", nothing, f"score --model {MODEL} --sequences no", 3, "no: no such file"),
    Bad("a warm start on recs", nothing, f"train --init-from no --sequences {SEQUENCES}", 3, "no column 'item_ids'"),
    Bad("an unknown title", nothing, f"recommend --model {MODEL} --items movies.csv Nosferatu", 2, "'Nosferatu' is no"),
    Bad("a title without a catalogue", nothing, "recommend --model no Film", 4, "no: no such model directory"),
    Bad("a template in place of an existing file", nothing, "init", 2, "batchrec.toml: already exists"),
    Bad("an unknown command", nothing, "publish", 2, "No such command 'publish'"),
]

BAD_INPUTS = [*LOGS, *CONFIGS, *OPTIONS, *MODELS, *NIGHTS, *COMMANDS]
