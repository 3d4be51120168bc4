-- At most one row: the first user who has several rows in the sequences.
-- Parameters: path, a sequences table.
select
    user_id,
    count(*) as n_rows
from read_parquet($path, hive_partitioning = false)
group by user_id
having count(*) > 1
order by user_id
limit 1
