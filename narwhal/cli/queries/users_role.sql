select private.change_role(p.id, %(role)s) as account
from public.user_profiles as p
where lower(p.email) = lower(%(email)s)
