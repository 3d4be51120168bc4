"""Print what a few users watched last and their recommendations, from a folder with the demo's files."""

import argparse
from pathlib import Path

import duckdb


def show(folder: Path, n_users: int, n_items: int) -> None:
    """Print the newest items of the first users next to their best recommendations, with genres."""
    con = duckdb.connect()
    watched = con.sql(
        """
        with events as (
            select user_id, unnest(item_ids) as item_id, generate_subscripts(item_ids, 1) as place
            from read_parquet($sequences)
        )
        select user_id, title, genres from events join read_csv($movies) on item_id = movieId
        qualify row_number() over (partition by user_id order by place desc) <= $n_items
        order by user_id, place
        """,
        params={
            "sequences": str(folder / "sequences.parquet"),
            "movies": str(folder / "movies.csv"),
            "n_items": n_items,
        },
    ).fetchall()
    recommended = con.sql(
        """
        select user_id, recs.title, genres from read_parquet($recs) as recs join read_csv($movies) on item_id = movieId
        where rank <= $n_items order by user_id, rank
        """,
        params={"recs": str(folder / "recs.parquet"), "movies": str(folder / "movies.csv"), "n_items": n_items},
    ).fetchall()
    for user_id in sorted({row[0] for row in recommended})[:n_users]:
        left = [f"{title}  {genres}" for user, title, genres in watched if user == user_id]
        right = [f"{title}  {genres}" for user, title, genres in recommended if user == user_id]
        print(f"\nUser {user_id}\n  {'watched last, newest at the end':50}  is recommended, best first")
        for before, after in zip(left, right, strict=False):
            print(f"  {before:50}  {after}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--items", type=int, default=8)
    arguments = parser.parse_args()
    show(arguments.folder, arguments.users, arguments.items)
