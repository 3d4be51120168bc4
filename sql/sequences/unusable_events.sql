-- One row per event that parsed but cannot be used, as it was written; in file order if insertion order is preserved.
-- Reads events. Parameters: n_rows, the maximum number of rows.
select
    file,
    cast(problem as varchar) as reason,
    raw_user,
    raw_item,
    raw_time,
    raw_rating,
    raw_event,
    raw_value
from events
where problem is not null
limit $n_rows -- noqa: AM09
