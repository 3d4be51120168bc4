-- One row per event: the columns for the histories, and those that show whether ids and times were read in the right
-- type and unit.
-- Reads events. Parameters: columns, their names.
select columns($columns)
from events
