-- One row per file of a source: the number of its records that parse.
-- Parameters: source, a view with batchrec_file.
select
    batchrec_file as file,
    count(*) as n_records
from query_table($source)
group by batchrec_file
