-- One row an event: what the histories need of it.
select
    user_id,
    item_id,
    moment,
    below_min_rating,
    problem,
    user_fits,
    item_fits
from events
