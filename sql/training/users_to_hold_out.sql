-- One row per user whose last event may be held out because it is before $until, in the order of holding out: by a
-- hash, so that users held out last night are held out again.
select user_id
from read_parquet($path, hive_partitioning = false)
where timestamps[-1] < $until
order by hash(user_id, $seed), user_id
