-- One row per row of the user's query, with the file of the query.
-- Reads query. Parameters: query_file.
select
    *,
    $query_file as batchrec_file
from query
