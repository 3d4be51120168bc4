-- One row per user whose last item is held out: the history without that item, and the item. The users are those that
-- training holds out: the last item is new to them and older than $until; of these, the first $max_users by a hash, at
-- most half. tests/nightly/test_held_out.py compares this with training/holdout.py.
with qualified as (
    select
        user_id,
        item_ids,
        timestamps,
        row_number() over (order by hash(user_id, $seed), user_id) as place,
        count(*) over () as n_users
    from read_parquet($path, hive_partitioning = false)
    where len(item_ids) >= 2 and not list_contains(item_ids[:-2], item_ids[-1]) and timestamps[-1] < $until
)

select
    user_id,
    item_ids[:-2] as item_ids,
    timestamps[:-2] as timestamps,
    item_ids[-1] as item_id
from qualified
where place <= greatest(1, least($max_users, n_users // 2))
