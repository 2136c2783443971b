select private.change_role(user_id => %(user_id)s::uuid, role => %(role)s) as account
