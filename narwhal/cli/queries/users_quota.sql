select private.change_quota(p.id, %(storage_limit)s) as account
from public.user_profiles as p
where lower(p.email) = lower(%(email)s)
