-- One row an event of a history whose user has enough events.
with frequent as (
    select user_id
    from history_events
    group by user_id
    having count(*) >= $min_user_events
)

select
    history_events.user_id,
    history_events.item_id,
    history_events.moment
from history_events
semi join frequent on history_events.user_id = frequent.user_id
