-- One row per event that may belong in a history. If $remember, events below --min-rating are included with left_out
-- set: they only make their items count as seen.
-- Reads loaded_events. Parameters: remember.
select
    user_id,
    item_id,
    moment,
    below_min_rating as left_out
from loaded_events
where problem is null and not before_since and ($remember or not below_min_rating)
