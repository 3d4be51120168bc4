-- The first record of a source of which a wanted value begins and ends with a quote, of a kind that is a letter there.
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
