-- One row a user, in the order in which they are held out: by a hash, so that whoever was held out last night is again.
select user_id
from read_parquet($path, hive_partitioning = false)
order by hash(user_id, $seed), user_id
