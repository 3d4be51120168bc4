-- One row per user of $users with a history at $sequences: the $n_events newest items and their times, newest first.
select
    user_id,
    list_reverse(item_ids[-$n_events:]) as item_ids,
    list_reverse(timestamps[-$n_events:]) as timestamps
from read_parquet($sequences, hive_partitioning = false)
where list_contains($users, user_id)
