-- One row a reason why events that parsed are in no history, null for those that are.
select
    if(problem is null and below_min_rating, 'below --min-rating', cast(problem as varchar)) as reason,
    count(*) as n_events
from loaded_events
group by reason
