select s.key, s.value, s.description, s.updated_at
from private.settings as s
order by s.key
