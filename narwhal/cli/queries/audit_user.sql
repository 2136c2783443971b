select u.id from auth.users as u
where lower(u.email) = lower(%(user)s::text)
