-- One row: whether the user $user is in the histories at $path; ids are compared without the blanks around them.
select count(*) > 0 as has_user
from read_parquet($path, hive_partitioning = false)
where trim(cast(user_id as varchar), $blanks) = $user
