-- One row per event of the users whose histories have enough events.
-- Reads history_events. Parameters: min_user_events.
with frequent as (
    select user_id
    from history_events
    where not left_out
    group by user_id
    having count(*) >= $min_user_events
)

select history_events.*
from history_events
semi join frequent on history_events.user_id = frequent.user_id
