-- One row per loaded event. Users whose ids differ only in the blanks around them get their most frequent spelling.
-- Reads loaded_events. Parameters: blanks, the characters to trim.
with counted as (
    select
        user_id,
        trim(user_id, $blanks) as without_blanks,
        count(*) as n_events
    from loaded_events
    where user_id is not null
    group by user_id
),

spellings as (
    select
        user_id,
        first_value(user_id) over (partition by without_blanks order by n_events desc, user_id asc) as spelling
    from counted
)

select loaded_events.* replace (spellings.spelling as user_id)
from loaded_events
left join spellings on loaded_events.user_id = spellings.user_id
