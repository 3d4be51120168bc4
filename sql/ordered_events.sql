-- One row an event, users in order, oldest first. Events of one moment stand in an order that is the same every time
-- but means nothing: by a hash, for an order by item would be one that a model learns. Seconds are rounded down, in
-- integers: doubles are exact up to the year 2255 only.
select
    user_id,
    item_id,
    moment // 1000000 - if(moment % 1000000 < 0, 1, 0) as timestamp
from history_events
order by user_id, moment, hash(user_id, item_id, moment), item_id
