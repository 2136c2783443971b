select a.account
from private.change_role(%(user_id)s::uuid, %(role)s) as a (account)
