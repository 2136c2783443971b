select
    a.id,
    a.at,
    a.actor,
    u.email as actor_email,
    a.on_behalf_of,
    b.email as on_behalf_of_email,
    a.action,
    a.node_id,
    coalesce(a.after ->> 'name', a.before ->> 'name', n.name) as name,
    a.owner_id,
    a.before,
    a.after,
    a.details,
    host(a.ip) as ip,
    a.user_agent,
    a.request_id
from public.audit_logs as a
left join auth.users as u on u.id = a.actor_id
left join auth.users as b on b.id = a.on_behalf_of
left join public.nodes as n on n.id = a.node_id
where (
    %(user)s::text is null
    or a.actor_id in (select p.id from auth.users as p where lower(p.email) = lower(%(user)s::text))
    or a.on_behalf_of in (select p.id from auth.users as p where lower(p.email) = lower(%(user)s::text))
)
and (%(action)s::text is null or a.action = %(action)s::text)
and (%(node)s::uuid is null or a.node_id = %(node)s::uuid)
and (%(date_from)s::timestamptz is null or a.at >= %(date_from)s::timestamptz)
and (%(date_to)s::timestamptz is null or a.at < %(date_to)s::timestamptz)
order by a.id desc
limit %(limit)s
