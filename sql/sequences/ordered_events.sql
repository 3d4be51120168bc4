-- One row per event, ordered by user and time. Events of one moment are ordered by a hash, which is reproducible but
-- has no meaning: a model would learn an order by item. Every column except left_out is a sort key, so that DuckDB need
-- not carry other columns along; callers that do not select left_out save that one as well.
-- Reads history_events.
select
    user_id,
    item_id,
    moment,
    left_out
from history_events
order by user_id, moment, hash(user_id, item_id, moment), item_id
