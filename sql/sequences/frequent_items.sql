-- One row per event whose item has enough events in the histories. If $remember, other events stay with left_out set.
-- Reads history_events; item_counts, one row per item with its events in all histories. Parameters: min_item_events;
-- remember.
with frequent as (
    select item_id
    from item_counts
    where n_events >= $min_item_events
)

select history_events.* replace (history_events.left_out or frequent.item_id is null as left_out)
from history_events
left join frequent on history_events.item_id = frequent.item_id
where $remember or frequent.item_id is not null
