-- One row a record of a source, whatever its columns are called, every value as its text, null where it is empty.
select
    nullif(cast(columns([$user_column]) as varchar), '') as user_id,
    nullif(cast(columns([$item_column]) as varchar), '') as item_id,
    nullif(cast(columns([$timestamp_column]) as varchar), '') as event_time,
    nullif(cast(columns([$rating_column]) as varchar), '') as rating,
    cast(batchrec_file as varchar) as file
from query_table($source)
