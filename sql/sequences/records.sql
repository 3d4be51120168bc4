-- One row per record of a source, every value as text, null if empty. Whole numbers in columns of floats and decimals
-- are written without decimal point and zeros.
-- Parameters: source, a view with batchrec_file; user_column, item_column, timestamp_column, rating_column,
-- event_column, value_column; their _is_number, whether the column has floats or decimals.
select
    plain_text(columns([$user_column]), $user_is_number) as user_id,
    plain_text(columns([$item_column]), $item_is_number) as item_id,
    plain_text(columns([$timestamp_column]), $timestamp_is_number) as event_time,
    plain_text(columns([$rating_column]), $rating_is_number) as rating,
    plain_text(columns([$event_column]), $event_is_number) as event_type,
    plain_text(columns([$value_column]), $value_is_number) as event_value,
    cast(batchrec_file as varchar) as file
from query_table($source)
