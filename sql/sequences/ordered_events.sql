-- One row an event, users in order, oldest first. Events of one moment stand in an order that is the same every time
-- but means nothing: by a hash, for an order by item would be one that a model learns. Every column but left_out is one
-- to sort by, so that DuckDB need not carry any along; nor that one, where it is not asked for.
select
    user_id,
    item_id,
    moment,
    left_out
from history_events
order by user_id, moment, hash(user_id, item_id, moment), item_id
