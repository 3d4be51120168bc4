-- One row: the greatest absolute value of a column of floats, which may be infinite; null if it has no numbers.
-- Parameters: source, a view; number, a column.
select max(abs(cast(columns([$number]) as double))) filter (where not isnan(cast(columns([$number]) as double)))
from query_table($source)
