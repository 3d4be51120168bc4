-- One row per row of a stored table, with the URL from which it was read.
-- Parameters: table, url.
select
    *,
    $url as batchrec_file
from query_table($table)
