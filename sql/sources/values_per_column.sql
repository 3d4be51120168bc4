-- One row: the number of values of each column that are not null.
-- Parameters: table.
select count(columns(*))
from query_table($table)
