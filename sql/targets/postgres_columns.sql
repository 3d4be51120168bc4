-- One row per column of the table or view $1 of Postgres, a quoted name, in order: its name and its type.
-- sqlfluff:dialect:postgres
-- sqlfluff:templater:raw
select
    attribute.attname::text as name,
    format_type(attribute.atttypid, attribute.atttypmod) as type_name
from pg_catalog.pg_attribute as attribute
where
    attribute.attrelid = to_regclass($1)
    and attribute.attnum > 0
    and not attribute.attisdropped
order by attribute.attnum
