-- One row per row of a table that people write, four columns as text without blanks around it, null if it is empty.
-- A table of fewer columns gives one of them twice. Whole numbers are written without a point and zeros.
select
    nullif(
        trim(
            if(
                $first_is_number,
                regexp_replace(cast(columns([$first_column]) as varchar), '\.0*$', ''),
                cast(columns([$first_column]) as varchar)
            )
        ),
        ''
    ) as first,
    nullif(
        trim(
            if(
                $second_is_number,
                regexp_replace(cast(columns([$second_column]) as varchar), '\.0*$', ''),
                cast(columns([$second_column]) as varchar)
            )
        ),
        ''
    ) as second,
    nullif(
        trim(
            if(
                $third_is_number,
                regexp_replace(cast(columns([$third_column]) as varchar), '\.0*$', ''),
                cast(columns([$third_column]) as varchar)
            )
        ),
        ''
    ) as third,
    nullif(
        trim(
            if(
                $fourth_is_number,
                regexp_replace(cast(columns([$fourth_column]) as varchar), '\.0*$', ''),
                cast(columns([$fourth_column]) as varchar)
            )
        ),
        ''
    ) as fourth
from query_table($source)
