-- One row per event: the columns for the histories, and those that show whether ids and times were read in the right
-- type and unit.
-- Reads events.
select
    user_id,
    item_id,
    moment,
    before_since,
    below_min_rating,
    problem,
    user_fits,
    item_fits,
    time_kind
from events
