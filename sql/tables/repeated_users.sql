-- One row a user who stands in the sequences more than once; there should be none.
select
    user_id,
    count(*) as n_rows
from read_parquet($path, hive_partitioning = false)
group by user_id
having count(*) > 1
order by user_id
limit 1
