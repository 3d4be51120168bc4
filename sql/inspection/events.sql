-- One row: the number of events that belong in a history, of their users and items, and the first and last time.
-- Reads loaded_events.
select
    count(*) as events,
    count(distinct user_id) as users,
    count(distinct item_id) as items,
    cast(make_timestamp(min(moment)) as varchar) as oldest,
    cast(make_timestamp(max(moment)) as varchar) as newest
from loaded_events
where problem is null and not before_since and not below_min_rating
