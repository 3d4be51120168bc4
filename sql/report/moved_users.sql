-- One row: the users of moves who are in both tables, only tonight and only before, those whose list holds the same
-- items as before, and the mean share of a list that was in the list before (null without users in both).
select
    count(*) filter (where n_tonight > 0 and n_before > 0) as users_in_both,
    count(*) filter (where n_before = 0) as users_in,
    count(*) filter (where n_tonight = 0) as users_out,
    count(*) filter (where n_kept = n_tonight and n_kept = n_before) as same_lists,
    avg(n_kept / n_tonight) filter (where n_tonight > 0 and n_before > 0) as overlap
from moves
