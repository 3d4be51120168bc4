-- One row per record of a source, whatever its columns are called, every value as its text, null if it is empty. Whole
-- numbers in columns of floats and decimals are written without a point and zeros.
select
    plain_text(columns([$user_column]), $user_is_number) as user_id,
    plain_text(columns([$item_column]), $item_is_number) as item_id,
    plain_text(columns([$timestamp_column]), $timestamp_is_number) as event_time,
    plain_text(columns([$rating_column]), $rating_is_number) as rating,
    cast(batchrec_file as varchar) as file
from query_table($source)
