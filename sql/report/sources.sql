-- One row per source of the recommendations at $recs: its numbers of rows and of users.
select
    source,
    count(*) as n_rows,
    count(distinct user_id) as users
from read_parquet($recs, hive_partitioning = false)
group by source
order by n_rows desc, source asc
