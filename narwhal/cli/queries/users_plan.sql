select private.change_plan(p.id, %(plan)s) as account
from public.user_profiles as p
where lower(p.email) = lower(%(email)s)
