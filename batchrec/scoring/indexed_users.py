"""The users of a chunk, looked up once: their histories, what each may get, and the digest of both."""

from dataclasses import dataclass

import pyarrow as pa

from batchrec.arrays import Bools, Longs
from batchrec.model.batching import Histories
from batchrec.rules.user_limits import UserLimits, limits_of
from batchrec.scoring.offer import Offer
from batchrec.scoring.seen_items import seen_items
from batchrec.tables.schemas import FIRST_ITEM


@dataclass(frozen=True)
class IndexedUsers:
    """Users over the indexes of the offer's vocabulary.

    batch: of the sequences. histories: items that the model knows. limits: seen and disliked items are among them, by
    --seen. digests: (users,) int64, which change with a user's history, what is blocked of it, other seen and disliked
    items, and the segment's items.
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


def index_users(batch: pa.RecordBatch, offer: Offer, seen_from: float, *, with_days: bool = False) -> IndexedUsers:
    """Look up a sequences batch, as `seen_items` takes it."""
    items = seen_items(batch, offer.vocabulary, seen_from, with_days=with_days)
    histories, digests = items.histories, items.digests
    limits = limits_of(offer.rules, items.blocked, batch["user_id"])
    if offer.rules.by_segment is not None and limits.segments is not None:
        # So that only users who may get other items than in the previous table are scored again.
        digests = digests ^ offer.rules.by_segment.digests[limits.segments]
    if offer.n_model_items < len(offer.vocabulary):
        histories = histories.below(FIRST_ITEM + offer.n_model_items)
    return IndexedUsers(batch, histories, limits, digests)
