-- One row a row of the user's query, with the file that holds the query.
select
    *,
    $query_file as batchrec_file
from query
