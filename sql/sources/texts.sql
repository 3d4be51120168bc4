-- One row per row of a table that people write: four columns as text without blanks around it, null if empty. If the
-- table has fewer columns, one is repeated. Whole numbers are written without decimal point and zeros.
-- Parameters: source, a view; first_column to fourth_column; first_is_number to fourth_is_number, whether the column
-- has floats or decimals.
select
    nullif(trim(plain_text(columns([$first_column]), $first_is_number)), '') as first,
    nullif(trim(plain_text(columns([$second_column]), $second_is_number)), '') as second,
    nullif(trim(plain_text(columns([$third_column]), $third_is_number)), '') as third,
    nullif(trim(plain_text(columns([$fourth_column]), $fourth_is_number)), '') as fourth
from query_table($source)
