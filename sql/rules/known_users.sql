-- One row per id of a rule table, in the view ids, that equals or is like a user of the histories at $path: its place
-- in the table, whether it equals one, and the user. Ids are compared by their trimmed text; ids are alike if they
-- differ only in case, leading zeros, a trailing .0, characters without width or the form of accents.
with users as (
    select
        trim(cast(user_id as varchar), $blanks) as user_id,
        ltrim(
            regexp_replace(
                nfc_normalize(lower(trim(cast(user_id as varchar), $blanks))), '\.0+$|\p{Cf}', '', 'g'
            ),
            '0'
        ) as alike
    from read_parquet($path, hive_partitioning = false)
)

select
    ids.place,
    bool_or(users.user_id = ids.id) as is_known,
    min(users.user_id) as alike
from users
inner join ids on users.alike = ids.alike
group by ids.place
