"""The users and items on which a blend is fitted."""

import numpy as np
import pytest

from batchrec.training.blend import fit_blend
from batchrec.training.blend_fit import FittedWeights
from batchrec.training.holdout import HeldOut
from batchrec.training.signals import read_signals
from tests.support.models import indexed, small_encoder

# 60 users take two of nine items, the first ones more often, then a third one, and an item that nobody has had before.
USERS = range(60)
HISTORIES = indexed(*([2 + user % 9, 2 + user % 4] if user % 9 != user % 4 else [2 + user % 9] for user in USERS))
LATER = indexed(*([2 + (user + 1) % 3, 20 + user % 30] for user in USERS))
SIZE, NEW = 50, 20


def fitted(held_out: HeldOut) -> FittedWeights:
    times = np.arange(len(held_out.histories.items))
    signals = read_signals(held_out.histories, times, len(times), SIZE)
    return fit_blend(small_encoder(SIZE), signals, held_out, seed=0, has_encoder=False)


def test_items_without_an_earlier_event_have_no_part_in_the_fit() -> None:
    with_new = fitted(HeldOut(HISTORIES, LATER))
    assert with_new == fitted(HeldOut(HISTORIES, LATER.keep(LATER.items < NEW)))
    assert with_new.weights["popular"] > 0


def test_users_who_take_only_such_items_have_none_either() -> None:
    only_new = LATER.keep((LATER.items >= NEW) | (np.repeat(USERS, 2) < 30))
    assert fitted(HeldOut(HISTORIES, only_new)) == fitted(HeldOut(HISTORIES, only_new.keep(only_new.items < NEW)))


@pytest.mark.parametrize("keep_seen", [False, True])
def test_a_log_in_which_all_later_items_are_new_has_a_blend(keep_seen: bool) -> None:
    new = LATER.keep(LATER.items >= NEW)
    assert fitted(HeldOut(HISTORIES, new, keep_seen)).weights.keys() >= {"popular", "neighbours"}
