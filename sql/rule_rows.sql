-- One row per row of a rule table, up to four columns as their text, null where they are empty. A table of fewer
-- columns gives one of them twice.
select
    nullif(trim(cast(columns([$first_column]) as varchar)), '') as first,
    nullif(trim(cast(columns([$second_column]) as varchar)), '') as second,
    nullif(trim(cast(columns([$third_column]) as varchar)), '') as third,
    nullif(trim(cast(columns([$fourth_column]) as varchar)), '') as fourth
from query_table($source)
