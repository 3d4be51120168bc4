-- One row: a user of the histories at $path whom no row of a rule table, in the view ids, names; null if there is none.
select any_value(trim(cast(user_id as varchar), $blanks)) as user_id
from read_parquet($path, hive_partitioning = false)
where trim(cast(user_id as varchar), $blanks) not in (select ids.id from ids)
