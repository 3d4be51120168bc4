-- One row: the greatest absolute value of the ids in a column of floats; null if there are no ids.
-- Parameters: source, a view; id_column.
select max(abs(cast(columns([$id_column]) as double))) filter (where isfinite(cast(columns([$id_column]) as double)))
from query_table($source)
