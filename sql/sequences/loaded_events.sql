-- One row per event: what the histories need of it, and what tells whether all were read in the right types and unit.
select
    user_id,
    item_id,
    moment,
    below_min_rating,
    problem,
    user_fits,
    item_fits,
    time_kind
from events
