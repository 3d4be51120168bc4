-- One row a row of a catalogue, id and title as text, null where they are empty.
select
    nullif(cast(columns([$item_column]) as varchar), '') as item_id,
    nullif(trim(cast(columns([$title_column]) as varchar)), '') as title
from query_table($source)
