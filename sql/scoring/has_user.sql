-- One row: whether a user, without blanks around the id, is in the histories at $path.
select count(*) > 0 as has_user
from read_parquet($path, hive_partitioning = false)
where trim(cast(user_id as varchar), $blanks) = $user
