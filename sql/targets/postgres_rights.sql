-- One row per right on schema $1 of Postgres, on its table $2 and on its table $3 that a publication needs.
-- sqlfluff:dialect:postgres
-- sqlfluff:templater:raw
select
    'schema ' || $1 as needed,
    exists(
        select true
        from pg_catalog.pg_namespace
        where nspname = $1
    ) as is_granted
union all
select
    'TEMPORARY on the database' as needed,
    has_database_privilege(current_database(), 'temporary') as is_granted
union all
select
    rights.name || ' on schema ' || $1 as needed,
    has_schema_privilege(namespace.oid, rights.name) as is_granted
from pg_catalog.pg_namespace as namespace
cross join (values ('USAGE'), ('CREATE')) as rights (name)
where
    namespace.nspname = $1
    -- Tables that exist need not be created.
    and (
        rights.name = 'USAGE'
        or 2 > (
            select count(*)
            from pg_catalog.pg_class as class
            where class.relnamespace = namespace.oid and class.relname in ($2, $3)
        )
    )
union all
select
    rights.name || ' on ' || $1 || '.' || class.relname as needed,
    has_table_privilege(class.oid, rights.name) as is_granted
from pg_catalog.pg_class as class
inner join pg_catalog.pg_namespace as namespace on class.relnamespace = namespace.oid
cross join (values ('SELECT'), ('INSERT'), ('DELETE')) as rights (name)
where
    namespace.nspname = $1
    and class.relname in ($2, $3)
