-- One row an event that a history may hold. Those that --min-rating leaves out are there too where $remember, and
-- left_out: their items count as seen, and nothing else.
select
    user_id,
    item_id,
    moment,
    below_min_rating as left_out
from loaded_events
where problem is null and ($remember or not below_min_rating)
