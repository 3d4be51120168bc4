-- One row: the number of pairs of the table test_pairs that have no event, and the first of them.
select
    count(*) as n_pairs,
    arg_min(listed_user, (listed_user, listed_item)) as listed_user,
    arg_min(listed_item, (listed_user, listed_item)) as listed_item
from test_pairs
where place is null
