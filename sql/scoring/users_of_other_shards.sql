-- One row: how many users in the recommendations at $recs do not belong to shard $shard of $n_shards, and one of them.
with users as (
    select distinct user_id
    from read_parquet($recs, hive_partitioning = false)
)

select
    count(*) as n_users,
    min(user_id) as example
from users
where shard_of(user_id, $blanks, $n_shards) <> $shard
