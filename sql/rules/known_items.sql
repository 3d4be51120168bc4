-- One row per id of a rule table, in the view ids, that equals or is like an item of the histories at $path or of
-- their columns also_seen and disliked: its place in the table, whether it equals one, and the item. Ids are compared
-- as in known_users.sql.
with events as (
    select
        trim(
            cast(unnest(list_concat(*columns(lambda name: name in ('item_ids', 'also_seen', 'disliked')))) as varchar),
            $blanks
        ) as item_id
    from read_parquet($path, hive_partitioning = false)
),

items as (
    select
        item_id,
        ltrim(regexp_replace(nfc_normalize(lower(item_id)), '\.0+$|\p{Cf}', '', 'g'), '0') as alike
    from events
)

select
    ids.place,
    bool_or(items.item_id = ids.id) as is_known,
    min(items.item_id) as alike
from items
inner join ids on items.alike = ids.alike
group by ids.place
