-- One row per loaded event. Items whose ids differ only in the blanks around them get their most frequent spelling.
-- Reads loaded_events. Parameters: blanks, the characters to trim.
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
