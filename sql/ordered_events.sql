-- One row an event, users in order, oldest first. Events of one moment stand in an order that is the same every time
-- but means nothing: by a hash, for an order by item would be one that a model learns.
select
    user_id,
    item_id,
    cast(floor(moment / 1000000) as bigint) as timestamp
from history_events
order by user_id, moment, hash(user_id, item_id, moment), item_id
