-- One row per tested user: the history without the test, as in the sequences table.
select
    split.user_id,
    split.item_ids[:split.n_training] as item_ids,
    split.timestamps[:split.n_training] as timestamps,
    split.item_ids[:0] as also_seen
from split
semi join tested_users on split.user_index = tested_users.user_index
order by split.user_id
