-- One row per user who is scored and pin, in the view pins. Scored are the users of the view listed_users if
-- $is_listed, otherwise those of the histories at $sequences and of the view user_segments; of these, the users of
-- shard $shard of $n_shards.
with users as (
    select trim(cast(user_id as varchar), $blanks) as user_id
    from read_parquet($sequences, hive_partitioning = false)
    where not $is_listed
    union
    select user_id
    from user_segments
    where not $is_listed
    union
    select user_id
    from listed_users
)

select
    users.user_id,
    pins.item_id,
    pins.position
from users
cross join pins
where $n_shards = 1 or shard_of(users.user_id, $blanks, $n_shards) = $shard
