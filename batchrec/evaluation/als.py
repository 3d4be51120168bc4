"""Implicit ALS as a baseline, if the extra batchrec[als] is installed.

Hu, Koren & Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008), as in the package implicit.
"""

from collections.abc import Iterator
from importlib.util import find_spec

import duckdb
import numpy as np
import pyarrow as pa

from batchrec.config import EvaluationConfig
from batchrec.system.machine import n_cores

_USERS_AT_A_TIME = 1000


def is_installed() -> bool:
    """Return whether the package implicit is installed."""
    return find_spec("implicit") is not None


def als_lists(
    con: duckdb.DuckDBPyConnection, schema: pa.Schema, config: EvaluationConfig, seed: int
) -> Iterator[pa.RecordBatch]:
    """Recommend by factorizing the user-item matrix, over the tables made by `splits.split_sequences`.

    Yields batches of user_id, rank (from 1, without gaps) and item_id, by `schema`.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    pairs = con.table("user_items").select("user_index", "item_index").fetchnumpy()
    item_ids = con.table("training_items").order("item_index").to_arrow_table()["item_id"].combine_chunks()
    tested = con.table("tested_users").order("place").to_arrow_table()
    interactions = csr_matrix(
        (np.ones(len(pairs["user_index"]), dtype=np.float32), (pairs["user_index"], pairs["item_index"])),
        shape=(len(con.table("split")), len(item_ids)),
    )
    # implicit starts its own threads, and warns if BLAS threads would compete with them.
    with threadpool_limits(1, "blas"):
        als = AlternatingLeastSquares(config.als_factors, random_state=seed, num_threads=n_cores())
        als.fit(interactions, show_progress=False)
        for users in tested.to_batches(_USERS_AT_A_TIME):
            indexes = users["user_index"].to_numpy()
            recommended, scores = als.recommend(
                indexes, interactions[indexes], N=config.top_k, filter_already_liked_items=not config.keep_seen
            )
            # If fewer than k items are left for a user, excluded items come last, with the lowest float32 as score.
            rows, places = np.nonzero(scores > np.finfo(np.float32).min)
            yield pa.record_batch(
                [
                    users["user_id"].take(pa.array(rows)),
                    pa.array((places + 1).astype(np.int32)),
                    item_ids.take(pa.array(recommended[rows, places])),
                ],
                names=schema.names,
            ).cast(schema)
