-- One row: a user of the histories at $path who is not in a rule table, in the view ids; null if all users are in it.
select any_value(trim(cast(user_id as varchar), $blanks)) as user_id
from read_parquet($path, hive_partitioning = false)
where trim(cast(user_id as varchar), $blanks) not in (select ids.id from ids)
