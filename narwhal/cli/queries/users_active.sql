select private.change_active(p.id, %(is_active)s) as account
from public.user_profiles as p
where lower(p.email) = lower(%(email)s)
