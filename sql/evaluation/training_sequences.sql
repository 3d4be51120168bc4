-- One row per user: the training part of the history, as in the sequences table.
select
    user_id,
    item_ids[:n_training] as item_ids,
    timestamps[:n_training] as timestamps,
    item_ids[:0] as also_seen
from split
where n_training > 0
order by user_id
