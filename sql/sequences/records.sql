-- One row per record of a source, whatever its columns are called, every value as its text, null if it is empty. Whole
-- numbers in columns of floats and decimals are written without a point and zeros.
select
    nullif(
        if(
            $user_is_number,
            regexp_replace(cast(columns([$user_column]) as varchar), '\.0*$', ''),
            cast(columns([$user_column]) as varchar)
        ),
        ''
    ) as user_id,
    nullif(
        if(
            $item_is_number,
            regexp_replace(cast(columns([$item_column]) as varchar), '\.0*$', ''),
            cast(columns([$item_column]) as varchar)
        ),
        ''
    ) as item_id,
    nullif(
        if(
            $timestamp_is_number,
            regexp_replace(cast(columns([$timestamp_column]) as varchar), '\.0*$', ''),
            cast(columns([$timestamp_column]) as varchar)
        ),
        ''
    ) as event_time,
    nullif(
        if(
            $rating_is_number,
            regexp_replace(cast(columns([$rating_column]) as varchar), '\.0*$', ''),
            cast(columns([$rating_column]) as varchar)
        ),
        ''
    ) as rating,
    cast(batchrec_file as varchar) as file
from query_table($source)
