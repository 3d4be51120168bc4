"""Hold out what users take after a point in time. The model is chosen by it, then refitted on later events too."""

import numpy as np

from batchrec.arrays import Bools, Longs
from batchrec.config import TrainingConfig
from batchrec.model.batching import Histories
from batchrec.training.corpus import Corpus
from batchrec.training.holdout import HeldOut, Split, TrainingPart


def hold_out_after(corpus: Corpus, cut: int, config: TrainingConfig) -> Split:
    """Hold out the items that up to config.validation_users users, at most half of all, take from the time `cut` on.

    A user qualifies with an event before the cut and, from then on, an item that is new to them, or any item if
    config.repeat_items. The split trains on the events before the cut. The refit trains on the later ones too, except
    those of the users up to the last held-out one in the order of holding out, whether they qualify or not: who
    qualifies changes from night to night, and an item that is held out tomorrow must not have been trained on today.
    """
    histories = corpus.histories
    users = np.repeat(np.arange(len(histories)), histories.lengths)
    is_before = corpus.times < cut
    later = _later_items(histories, users, is_before, config.repeat_items)
    has_before = np.bincount(users[is_before], minlength=len(histories)) > 0
    is_qualified = has_before & (later.lengths > 0)
    places = np.flatnonzero(is_qualified[corpus.holdout_users])
    n_held_out = max(1, min(config.validation_users, len(places) // 2))
    is_withheld = np.zeros(len(histories), bool)
    is_withheld[corpus.holdout_users[: places[n_held_out - 1] + 1]] = True
    training = histories.keep(is_before)

    def later_of(users: Longs) -> HeldOut:
        chosen = np.sort(users)
        return HeldOut(training.take(chosen), later.take(chosen), config.repeat_items)

    qualified = corpus.holdout_users[places[: config.validation_users]]
    is_refitted = is_before | ~is_withheld[users]
    return Split(
        training,
        later_of(qualified[:n_held_out]),
        later_of(qualified),
        is_before,
        TrainingPart(histories.keep(is_refitted), is_refitted),
    )


def _later_items(histories: Histories, users: Longs, is_before: Bools, keep_seen: bool) -> Histories:
    """List each user's different items after the cut that are new to them, or all of them if keep_seen.

    users, is_before: (events,) the user of each event, and whether it is before the cut.
    """
    is_after = ~is_before
    # Only users with later events can have later items, and their earlier events tell which of them are new.
    is_concerned = is_after if keep_seen else np.isin(users, users[is_after])
    events = np.flatnonzero(is_concerned)
    size = int(histories.items.max(initial=0)) + 1
    pairs, first = np.unique(users[events] * size + histories.items[events], return_index=True)
    pairs = pairs[is_after[events[first]]]
    lengths = np.bincount(pairs // size, minlength=len(histories))
    return Histories((pairs % size).astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]))
