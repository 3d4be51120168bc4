-- One row per reason why parsed events are in no history; the reason is null for events that are in one.
-- Reads loaded_events.
select
    case
        when problem is not null then cast(problem as varchar)
        when before_since then 'before --since'
        when below_min_rating then 'below --min-rating'
    end as reason,
    count(*) as n_events
from loaded_events
group by reason
