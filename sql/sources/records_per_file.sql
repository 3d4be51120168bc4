-- One row per file of a source: how many of its records parse.
select
    batchrec_file as file,
    count(*) as n_records
from query_table($source)
group by batchrec_file
