-- One row per item with events, of all time or in the last $days days of the training part, with its place by their
-- number, from 1; ties in the order of ids.
with span as (
    select max(moment) as newest
    from training_events
)

select
    training_items.item_id,
    training_items.item_index,
    row_number() over (order by count(*) desc, training_items.item_index asc) as place
from training_events
inner join training_items on training_events.item_id = training_items.item_id
cross join span
where $days is null or training_events.moment > span.newest - 86400 * $days
group by training_items.item_id, training_items.item_index
