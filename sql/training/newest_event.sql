-- One row: the time of the newest event of the histories at $path before $until, in Unix seconds.
select max(moment) as newest
from (select unnest(timestamps) as moment from read_parquet($path, hive_partitioning = false)) as events
where moment < $until
