-- One row per reason why parsed events are in no history; the reason is null for events that are in one.
-- Reads loaded_events.
select
    if(problem is null and below_min_rating, 'below --min-rating', cast(problem as varchar)) as reason,
    count(*) as n_events
from loaded_events
group by reason
