"""The users of a chunk, looked up once: their histories, what each may get, and the digest of both."""

from dataclasses import dataclass

import pyarrow as pa

from batchrec.arrays import Bools, Longs
from batchrec.model.batching import Histories, also_seen, history_digests
from batchrec.rules.seen_and_blocked import UserLimits, limits_of
from batchrec.scoring.offer import Offer
from batchrec.tables.schemas import FIRST_ITEM


@dataclass(frozen=True)
class IndexedUsers:
    """Users over the indexes of the offer's vocabulary.

    batch: of the sequences. histories: items that the model knows. limits: seen items are among them, unless keep_seen.
    digests: (users,) int64, which change with a user's history, other seen items and segment's items.
    """

    batch: pa.RecordBatch
    histories: Histories
    limits: UserLimits
    digests: Longs

    @property
    def user_ids(self) -> pa.Array:
        """The ids of the users: (users,)."""
        return self.batch["user_id"]

    @property
    def is_known(self) -> Bools:
        """Whether the model knows an item of the history: (users,). All other users are cold."""
        is_known: Bools = self.histories.lengths > 0
        return is_known

    @property
    def n_unknown_items(self) -> int:
        """How many items in the histories the model does not know."""
        return len(self.batch["item_ids"].flatten()) - len(self.histories.items)


def index_users(batch: pa.RecordBatch, offer: Offer, keep_seen: bool) -> IndexedUsers:
    """Look up a sequences batch: columns user_id, item_ids and, if it exists, also_seen."""
    histories = Histories.from_arrow(batch["item_ids"], offer.vocabulary)
    others = also_seen(batch, offer.vocabulary)
    seen = None if keep_seen else histories.followed_by(others)
    limits = limits_of(offer.rules, seen, batch["user_id"])
    digests = history_digests(histories, others)
    if offer.rules.by_segment is not None and limits.segments is not None:
        # So that only users who may get other items than in the previous table are scored again.
        digests ^= offer.rules.by_segment.digests[limits.segments]
    if offer.n_model_items < len(offer.vocabulary):
        histories = histories.below(FIRST_ITEM + offer.n_model_items)
    return IndexedUsers(batch, histories, limits, digests)
