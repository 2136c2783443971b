select
    s.statistics || jsonb_build_object('top_users', (
        select coalesce(jsonb_agg(t.top || jsonb_build_object('email', u.email) order by t.place), '[]')
        from jsonb_array_elements(s.statistics -> 'top_users') with ordinality as t (top, place)
        left join auth.users as u on u.id = (t.top ->> 'user_id')::uuid
    )) as statistics
from (
    select private.query_statistics(
        coalesce(
            %(date_from)s::timestamptz, coalesce(%(date_to)s::timestamptz, now()) - interval '30 days'
        ),
        coalesce(%(date_to)s::timestamptz, now())
    ) as statistics
) as s
