-- One row per part of the blend that carried recommendations at $recs, null for rows that none carried: its number of
-- rows.
select
    carried_by,
    count(*) as n_rows
from read_parquet($recs, hive_partitioning = false)
group by carried_by
order by n_rows desc, carried_by asc
