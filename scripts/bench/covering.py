"""The designs whose figures set the bars of search: one row a chunk, scored in a covering index.

Vectors in half precision in one index, BM25 weights as sparse vectors in another, each led by the
owner and scanned under row level security by whoever asks: retrieval in plain Postgres at its
simplest. What they take on a machine says how far the bars, measured on another one, carry there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from narwhal.evaluation.asking import User

SCHEMA = """
create schema covering;
create table covering.vectors (
    owner_id uuid not null, chunk_id uuid not null, embedding extensions.halfvec(384)
);
create table covering.words (
    owner_id uuid not null, chunk_id uuid not null, weights extensions.sparsevec(536870912)
);
alter table covering.vectors enable row level security;
alter table covering.words enable row level security;
create policy owners_can_select on covering.vectors
for select to authenticated using (owner_id = (select auth.uid()));
create policy owners_can_select on covering.words
for select to authenticated using (owner_id = (select auth.uid()));
grant usage on schema covering to authenticated;
grant select on covering.vectors, covering.words to authenticated;
create function covering.place(lexeme text) returns bigint
language sql immutable
return (hashtextextended(lexeme, 0) & 536870911) + 1;
"""
FILL = (
    """
    insert into covering.vectors
    select v.owner_id, v.chunk_id, v.embedding::extensions.halfvec(384)
    from private.chunk_vectors as v where v.owner_id = %(owner)s
    """,
    """
    insert into covering.words
    select %(owner)s, c.id, format('{%%s}/536870912', w.weights)::extensions.sparsevec
    from (
        select t.file_id, t.idx, string_agg(t.place || ':' || t.weight, ',') as weights
        from (
            select
                t.file_id, (e >> 40)::integer as idx, covering.place(t.lexeme) as place,
                max(
                    1 / (1 + (0.3 + (e & 16777215) * 0.9 / s.average) / ((e >> 24) & 65535))
                )::real as weight
            from private.chunk_terms as t
            cross join lateral unnest(t.entries) as e
            cross join (
                select o.total_length::float8 / o.chunk_count as average
                from private.owner_statistics as o where o.owner_id = %(owner)s
            ) as s
            where t.owner_id = %(owner)s
            group by 1, 2, 3
        ) as t
        group by t.file_id, t.idx
    ) as w
    inner join public.chunks as c on c.file_id = w.file_id and c.idx = w.idx
    """,
    "create index on covering.vectors (owner_id) include (chunk_id, embedding)",
    "create index on covering.words (owner_id) include (chunk_id, weights)",
    "vacuum analyze covering.vectors, covering.words",
)
WORDS = """
select format('{%%s}/536870912', string_agg(w.place || ':' || w.weight, ','))
from (
    select covering.place(u.lexeme) as place, max(u.weight)::real as weight
    from private.weigh_query(private.parse_query(%s), %s) as q
    cross join lateral unnest(q.lexemes, q.weights) as u (lexeme, weight)
    group by 1
) as w
"""
NEAREST = """
select t.chunk_id from covering.{table} as t
order by (t.{column} operator(extensions.<#>) %s::extensions.{type}) + 0 limit %s
"""
Ask = Callable[[str, Any], Any]


@contextmanager
def covering(
    db: psycopg.Connection[Any],
    connection: psycopg.Connection[Any],
    reader: User,
    questions: list[str],
    count: int,
) -> Iterator[tuple[Ask, Ask]]:
    """Yield how to ask by words and by vector, over `connection`, as its reader; then drop all."""
    db.execute(SCHEMA)
    try:
        for statement in FILL:
            db.execute(statement, {"owner": reader.id} if "%(owner)s" in statement else None)
        # not timed: what the question weighs is the same work for every design
        weighed = {query: db.execute(WORDS, (query, reader.id)).fetchone() for query in questions}
        connection.execute("set enable_seqscan = off; set enable_bitmapscan = off")

        def by_words(query: str, _vector: Any) -> Any:
            (weights,) = weighed[query] or (None,)
            statement = NEAREST.format(table="words", column="weights", type="sparsevec")
            return connection.execute(statement, (weights, count)).fetchall()

        def by_vector(_query: str, vector: Any) -> Any:
            statement = NEAREST.format(table="vectors", column="embedding", type="halfvec")
            return connection.execute(statement, (str(vector.tolist()), count)).fetchall()

        yield by_words, by_vector
    finally:
        db.execute("drop schema covering cascade")
