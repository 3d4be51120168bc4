-- One row per event whose id in $id_column has enough events in the histories. If $remember, other events stay with
-- left_out set.
-- Reads history_events. Parameters: id_column, 'user_id' or 'item_id'; min_events; remember.
with frequent as (
    select
        columns([$id_column]),
        true as is_frequent
    from history_events
    where not left_out
    group by all
    having count(*) >= $min_events
)

select
    history_events.user_id,
    history_events.item_id,
    history_events.moment,
    history_events.left_out or frequent.is_frequent is null as left_out
from history_events
natural left join frequent
where $remember or frequent.is_frequent
