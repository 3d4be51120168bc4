-- One row per attached database that is writable and not in memory.
select database_name
from duckdb_databases()
where not internal and not readonly and path is not null
