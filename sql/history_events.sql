-- One row an event that may stand in a history.
select
    user_id,
    item_id,
    moment
from loaded_events
where problem is null and not below_min_rating
