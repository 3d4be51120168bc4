-- One row per kind of time and fit of ids, over the events with a time. Rows without a time do not count: one may be a
-- header in the middle of a file, which must not turn all ids into text.
-- Reads loaded_events.
select
    time_kind,
    coalesce(user_fits, true) as user_fits,
    coalesce(item_fits, true) as item_fits,
    user_id is not null as has_user,
    item_id is not null as has_item,
    count(*) as n_events,
    min(moment) as oldest,
    max(moment) as newest
from loaded_events
where moment is not null
group by all
