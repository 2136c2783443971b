update public.user_profiles as p
set role = %(role)s, updated_at = now()
where p.id = %(user_id)s::uuid
