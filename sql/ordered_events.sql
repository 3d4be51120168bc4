-- One row an event, users in order, oldest first. Events of one moment stand in an order that is the same every time
-- but means nothing: by a hash, for an order by item would be one that a model learns. Every column is one to sort by,
-- so that DuckDB need not carry any along.
select
    user_id,
    item_id,
    moment
from history_events
order by user_id, moment, hash(user_id, item_id, moment), item_id
