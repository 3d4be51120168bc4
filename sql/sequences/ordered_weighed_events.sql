-- One row per event, ordered as in ordered_events.sql, then by weight: events of one moment may be of several types.
-- Reads history_events.
select
    user_id,
    item_id,
    moment,
    left_out,
    weight,
    is_seen,
    is_disliked
from history_events
order by user_id, moment, hash(user_id, item_id, moment), item_id, weight, is_seen
