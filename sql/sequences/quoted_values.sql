-- At most one row: the first record of a source in which a wanted value begins and ends with a quote although quotes
-- are ordinary characters.
-- Parameters: source, a view with batchrec_file; user_column, item_column, timestamp_column.
with wanted as (
    select
        batchrec_file as file,
        columns([$user_column]) as user_id,
        columns([$item_column]) as item_id,
        columns([$timestamp_column]) as event_time
    from query_table($source)
)

select
    file,
    user_id,
    item_id,
    event_time
from wanted
where concat_ws(chr(10), '', user_id, item_id, event_time, '') similar to '(?s).*\n"[^\n]*"\n.*'
limit 1 -- noqa: AM09
