-- One row a user whose last event may be held out, for it is before $until, in the order in which that is done: by a
-- hash, so that whoever was held out last night is again.
select user_id
from read_parquet($path, hive_partitioning = false)
where timestamps[-1] < $until
order by hash(user_id, $seed), user_id
