-- One row per training event, with its place in the history, from 1, oldest first.
select
    user_index,
    unnest(item_ids[:n_training]) as item_id,
    unnest(timestamps[:n_training]) as moment,
    unnest(range(1, n_training + 1)) as place
from split
