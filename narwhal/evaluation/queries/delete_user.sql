-- An account of an evaluation, with what is left of its files.
delete from auth.users as u
where u.id = %(user_id)s
