-- One row an item that is trained on, numbered by id, and its place by popularity, from 1; equals in the order of ids.
select
    item_id,
    row_number() over (order by item_id) - 1 as item_index,
    row_number() over (order by count(*) desc, item_id asc) as popularity
from training_events
group by item_id
