-- One row per loaded event, items whose ids differ in the blanks around them alone spelled alike: as most of them are.
with counted as (
    select
        item_id,
        trim(item_id, $blanks) as without_blanks,
        count(*) as n_events
    from loaded_events
    where item_id is not null
    group by item_id
),

spellings as (
    select
        item_id,
        first_value(item_id) over (partition by without_blanks order by n_events desc, item_id asc) as spelling
    from counted
)

select loaded_events.* replace (spellings.spelling as item_id)
from loaded_events
left join spellings on loaded_events.item_id = spellings.item_id
