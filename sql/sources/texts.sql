-- One row per row of a table that people write, four columns as text without blanks around it, null if it is empty.
-- A table of fewer columns gives one of them twice. Whole numbers are written without a point and zeros.
select
    nullif(trim(plain_text(columns([$first_column]), $first_is_number)), '') as first,
    nullif(trim(plain_text(columns([$second_column]), $second_is_number)), '') as second,
    nullif(trim(plain_text(columns([$third_column]), $third_is_number)), '') as third,
    nullif(trim(plain_text(columns([$fourth_column]), $fourth_is_number)), '') as fourth
from query_table($source)
