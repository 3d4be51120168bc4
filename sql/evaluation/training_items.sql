-- One row per item of the training part, numbered by id, with its rank by popularity, from 1; ties in the order of ids.
select
    item_id,
    row_number() over (order by item_id) - 1 as item_index,
    row_number() over (order by count(*) desc, item_id asc) as popularity
from training_events
group by item_id
