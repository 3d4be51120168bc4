-- One row per attached database that can be written to, but for those in memory.
select database_name
from duckdb_databases()
where not internal and not readonly and path is not null
