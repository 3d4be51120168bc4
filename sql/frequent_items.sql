-- One row an event of a history whose item has enough events.
with frequent as (
    select item_id
    from history_events
    group by item_id
    having count(*) >= $min_item_events
)

select
    history_events.user_id,
    history_events.item_id,
    history_events.moment
from history_events
semi join frequent on history_events.item_id = frequent.item_id
