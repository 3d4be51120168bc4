-- One row per id of a rule table, in the view ids, that is a user of the histories at $path, or like one: its place in
-- the table, whether it is one, and such a user. Ids are compared by their trimmed text; those are alike that differ in
-- case, zeros in front or a trailing .0 alone.
with users as (
    select
        trim(cast(user_id as varchar), $blanks) as user_id,
        ltrim(regexp_replace(lower(trim(cast(user_id as varchar), $blanks)), '\.0+$', ''), '0') as alike
    from read_parquet($path, hive_partitioning = false)
)

select
    ids.place,
    bool_or(users.user_id = ids.id) as is_known,
    min(users.user_id) as alike
from users
inner join ids on users.alike = ids.alike
group by ids.place
