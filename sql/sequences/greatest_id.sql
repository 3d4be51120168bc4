-- One row: the id furthest from 0 in a column of floats; null if there is none.
select max(abs(cast(columns([$id_column]) as double))) filter (where isfinite(cast(columns([$id_column]) as double)))
from query_table($source)
