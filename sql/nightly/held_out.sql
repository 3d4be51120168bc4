-- One row a user whose last item is held out, the same users as in training: the history without it, and that item. A
-- user qualifies by a last item that is new to them and of a moment before $until; the first $most by a hash are taken,
-- half of all at most.
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
where place <= greatest(1, least($most, n_users // 2))
