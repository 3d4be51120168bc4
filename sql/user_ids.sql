-- One row a row of a list of users, the id as text, null where it is empty.
select nullif(cast(columns([$user_column]) as varchar), '') as user_id
from query_table($source)
