-- One row per row of the relation $asked, which has the columns user_id and item_id: its columns, and whether the rule
-- tables allow it on $night. A row of --allow or --block without a segment is for all users, a row with a segment only
-- for the users of the segment. Views: item_lists (--allow, --block), user_items (--block-for-user, --candidates),
-- user_segments.
with lists as (
    select distinct
        option,
        item_id,
        segment
    from item_lists
    where $night between coalesce(valid_from, $night) and coalesce(valid_to, $night)
),

pairs as (
    select distinct
        option,
        user_id,
        item_id
    from user_items
    where (user_id, item_id) in (select (asked.user_id, asked.item_id) from query_table($asked) as asked)
)

select
    asked.*,
    not $has_allow or allowed.item_id is not null or allowed_own.item_id is not null as is_allowed,
    blocked.item_id is not null or blocked_own.item_id is not null as is_blocked,
    blocked_for.item_id is not null as is_blocked_for_user,
    not $has_candidates or candidates.item_id is not null as is_candidate
from query_table($asked) as asked
left join user_segments on asked.user_id = user_segments.user_id
left join lists as allowed
    on asked.item_id = allowed.item_id and allowed.option = '--allow' and allowed.segment is null
left join lists as allowed_own
    on
        asked.item_id = allowed_own.item_id
        and user_segments.segment = allowed_own.segment
        and allowed_own.option = '--allow'
left join lists as blocked
    on asked.item_id = blocked.item_id and blocked.option = '--block' and blocked.segment is null
left join lists as blocked_own
    on
        asked.item_id = blocked_own.item_id
        and user_segments.segment = blocked_own.segment
        and blocked_own.option = '--block'
left join pairs as blocked_for
    on
        asked.user_id = blocked_for.user_id
        and asked.item_id = blocked_for.item_id
        and blocked_for.option = '--block-for-user'
left join pairs as candidates
    on
        asked.user_id = candidates.user_id
        and asked.item_id = candidates.item_id
        and candidates.option = '--candidates'
