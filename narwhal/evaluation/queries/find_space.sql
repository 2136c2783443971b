-- A space to evaluate, whether it is in service yet or not.
select to_jsonb(s) as space
from public.embedding_spaces as s
where s.kind = 'text' and s.state <> 'retiring'
    and case when %(space)s = 'active' then s.state = 'active' else s.name = %(space)s end
