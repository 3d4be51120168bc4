-- One row: the number of recommendations in the view ruled_recs that come after the first $maximum of their category,
-- in the view categories, in a list; and user, rank and item of the first one.
with counted as (
    select
        ruled_recs.user_id,
        ruled_recs.rank,
        ruled_recs.item_id,
        row_number() over (partition by ruled_recs.user_id, categories.category order by ruled_recs.rank) as place
    from ruled_recs
    inner join categories on ruled_recs.item_id = categories.item_id
)

select
    count(*) as n_rows,
    min(row(user_id, rank, item_id)) as example
from counted
where place > $maximum
