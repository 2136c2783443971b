select s.key, s.value, s.description, s.updated_at
from private.change_setting(%(key)s, %(value)s::jsonb) as s
