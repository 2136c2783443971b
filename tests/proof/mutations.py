"""What the rule consists of, and how each part of it could be wrong.

A mutation replaces a piece of a function, or of a policy, by something looser. Texts are compared
without comments and with single spaces; a text that is not there (any more), or there more than
once without `nth`, is an error: then the list below has to follow the migrations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from psycopg import sql

from tests.database import Database

HIT = "private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots)"
UNEXPIRED = "and (s.expires_at is null or s.expires_at > now())"


@dataclass(frozen=True)
class Loosened:
    """A function of `private` with one piece replaced."""

    function: str
    old: str
    new: str = ""
    nth: int = 1  # of how many such pieces in the function, see `of`
    of: int = 1

    def __str__(self) -> str:
        piece = f" ({self.nth} of {self.of})" if self.of > 1 else ""
        return f"{self.function}: {self.old or 'all'}{piece} -> {self.new or 'nothing'}"

    @property
    def functions(self) -> set[str]:
        """The function that it changes."""
        return {self.function}

    def apply(self, db: Database) -> None:
        """Replace the function."""
        (definition,) = db.all(
            "select pg_get_functiondef(p.oid) from pg_proc as p"
            " where p.pronamespace = 'private'::regnamespace and p.proname = %s",
            self.function,
        )
        run(db, replaced(definition, self.old, self.new, self.nth, self.of))


@dataclass(frozen=True)
class LoosenedPolicy:
    """A policy with one piece replaced, or all of it open."""

    table: str
    policy: str
    old: str = ""
    new: str = ""
    nth: int = 1
    of: int = 1

    def __str__(self) -> str:
        return f"{self.table}.{self.policy}: {self.old or 'all'} -> {self.new or 'true'}"

    def apply(self, db: Database) -> None:
        """Alter the policy."""
        schema, name = self.table.split(".")
        using, check = db.one(
            "select qual, with_check from pg_policies"
            " where schemaname = %s and tablename = %s and policyname = %s",
            schema,
            name,
            self.policy,
        )
        clauses = []
        for keyword, expression in (("using", using), ("with check", check)):
            if expression is None:
                continue
            loose = "true"
            if self.old:
                loose = replaced(expression, self.old, self.new, self.nth, self.of)
            clauses.append(f"{keyword} ({loose})")
        run(db, f"alter policy {self.policy} on {self.table} {' '.join(clauses)}")


@dataclass(frozen=True)
class Both:
    """Two mutations at once, where either alone is made up for by the other."""

    first: Loosened | Both
    second: Loosened | Both

    def __str__(self) -> str:
        return f"{self.first} and {self.second}"

    @property
    def functions(self) -> set[str]:
        """The functions that it changes."""
        return self.first.functions | self.second.functions

    def apply(self, db: Database) -> None:
        """Replace both."""
        self.first.apply(db)
        self.second.apply(db)


Mutation = Loosened | LoosenedPolicy | Both


def plain(text: str) -> str:
    """Return SQL without comments, with single spaces."""
    return " ".join(re.sub(r"--[^\n]*", "", text).split())


def replaced(text: str, old: str, new: str, nth: int, of: int) -> str:
    """Replace one piece, which must be there exactly `of` times."""
    text = plain(text)
    if text.count(old) != of:
        raise LookupError(f"{old!r} is there {text.count(old)} times, not {of}: {text}")
    at = -1
    for _ in range(nth):
        at = text.index(old, at + 1)
    return text[:at] + new + text[at + len(old) :]


def run(db: Database, statement: str) -> None:
    """Run a statement that was put together."""
    db.connection.execute(sql.SQL(statement))  # type: ignore[arg-type]


def policies(db: Database) -> list[LoosenedPolicy]:
    """Every policy of ours, open to everybody."""
    return [
        LoosenedPolicy(f"{schema}.{table}", policy)
        for schema, table, policy in db.all(
            "select schemaname, tablename, policyname from pg_policies"
            " where schemaname = 'public' or policyname like 'narwhal\\_%%' order by 1, 2, 3",
        )
    ]


MANAGED = (
    "(n.owner_id = ANY (( SELECT private.my_managed_owner_ids() AS my_managed_owner_ids)::uuid[]))"
)
MANAGED_BY_SHARE = "(n.path && ( SELECT private.my_managed_roots() AS my_managed_roots))"
IS_ACTIVE = "( SELECT private.is_active() AS is_active)"
OF_NODE = "(n.id = shares.node_id) AND "
OF_LINK = "(n.id = share_links.node_id) AND "

PARTS_OF_POLICIES = [
    LoosenedPolicy("public.user_profiles", "users_can_select", IS_ACTIVE, "true"),
    LoosenedPolicy("public.user_profiles", "users_can_update", IS_ACTIVE, "true"),
    LoosenedPolicy(
        "public.shares",
        "parties_can_select",
        "(id = ANY (( SELECT private.my_share_ids() AS my_share_ids)::uuid[]))",
        "false",
    ),
    LoosenedPolicy("public.shares", "parties_can_select", MANAGED, "true"),
    LoosenedPolicy("public.shares", "parties_can_select", MANAGED_BY_SHARE, "false"),
    LoosenedPolicy("public.shares", "parties_can_select", OF_NODE),
    LoosenedPolicy("public.share_links", "managers_can_select", IS_ACTIVE, "true"),
    LoosenedPolicy(
        "public.share_links",
        "managers_can_select",
        "(created_by = ( SELECT auth.uid() AS uid))",
        "true",
    ),
    LoosenedPolicy("public.share_links", "managers_can_select", MANAGED, "true"),
    LoosenedPolicy("public.share_links", "managers_can_select", MANAGED_BY_SHARE, "true"),
    LoosenedPolicy("public.share_links", "managers_can_select", OF_LINK),
    LoosenedPolicy("public.uploads", "uploaders_can_select", IS_ACTIVE, "true"),
    LoosenedPolicy(
        "public.uploads",
        "uploaders_can_select",
        "(created_by = ( SELECT auth.uid() AS uid))",
        "true",
    ),
    LoosenedPolicy(
        "public.node_user_state",
        "users_can_select",
        "(user_id = ( SELECT auth.uid() AS uid))",
        "true",
    ),
    LoosenedPolicy("public.notifications", "users_can_select", IS_ACTIVE, "true"),
    LoosenedPolicy(
        "public.notifications",
        "users_can_select",
        "(user_id = ( SELECT auth.uid() AS uid))",
        "true",
    ),
    LoosenedPolicy("public.notifications", "users_can_delete", IS_ACTIVE, "true"),
    LoosenedPolicy("public.audit_logs", "parties_can_select", IS_ACTIVE, "true"),
    LoosenedPolicy(
        "public.audit_logs",
        "parties_can_select",
        "(owner_id = ANY (( SELECT private.my_managed_owner_ids() AS my_managed_owner_ids)::uuid[]))",
        "true",
    ),
    LoosenedPolicy(
        "public.audit_logs",
        "parties_can_select",
        "( SELECT private.has_permission('view_analytics'::text) AS has_permission)",
        "true",
    ),
]

FUNCTIONS: list[Loosened | Both] = [
    # roles and accounts
    Loosened("user_has_permission", "and p.is_active"),
    Loosened(
        "user_has_permission", "r.permission in (user_has_permission.permission, 'admin')", "true"
    ),
    Loosened("user_has_permission", "p.id = user_has_permission.user_id", "true"),
    Loosened(
        "has_permission",
        "private.user_has_permission(auth.uid(), has_permission.permission)",
        "true",
    ),
    Loosened("is_active", "p.id = auth.uid() and p.is_active", "p.id = auth.uid()"),
    Loosened("is_active", "p.id = auth.uid() and p.is_active", "p.is_active"),
    Loosened("require_user", "not private.is_active()", "false"),
    Loosened("require_user", "auth.uid() is null or"),
    Loosened("require_actor", "private.require_user()", "auth.uid()"),
    # who is meant
    Loosened("email_of", "and u.email_confirmed_at is not null"),
    Loosened("email_of", "lower(u.email)", "u.email"),
    Loosened("email_of", "u.id = email_of.user_id", "true"),
    Loosened("is_person", "(person_email = user_email)", "true"),
    Loosened("is_person", "ELSE (person_id = user_id)", "ELSE (person_email = user_email)"),
    Loosened("group_ids_of", "where g.user_id = group_ids_of.user_id"),
    Loosened("group_ids_of", "g.user_id is null and"),
    Loosened("group_ids_of", "and g.email = private.email_of(group_ids_of.user_id)"),
    Loosened("my_group_ids", "private.is_active()", "true"),
    # owners
    Loosened("owner_ids_of", "where o.id = owner_ids_of.user_id"),
    Loosened("owner_ids_of", "where w.user_id = owner_ids_of.user_id"),
    Loosened("owner_ids_of", "w.user_id is null and"),
    Loosened("owner_ids_of", "and w.email = private.email_of(owner_ids_of.user_id)"),
    Loosened(
        "owner_ids_of", "where private.user_has_permission(owner_ids_of.user_id, 'view_documents')"
    ),
    Loosened(
        "my_owner_ids",
        "private.owner_ids_of(auth.uid())",
        "array_agg(o.id) from public.owners as o",
    ),
    Loosened("owner_level", "owner_level.user_id = owner_level.owner_id", "true"),
    Loosened("owner_level", "w.workspace_id = owner_level.owner_id and"),
    Loosened(
        "owner_level",
        "and private.is_person(w.user_id, w.email, owner_level.user_id, private.email_of(owner_level.user_id))",
    ),
    Loosened("owner_level", "desc"),
    Loosened("level_rank", "WHEN 'view'::text THEN 1", "WHEN 'view'::text THEN 3"),
    Loosened("level_rank", "WHEN 'comment'::text THEN 2", "WHEN 'comment'::text THEN 3"),
    Loosened("level_rank", "WHEN 'edit'::text THEN 3", "WHEN 'edit'::text THEN 4"),
    Loosened(
        "my_managed_owner_ids", ">= private.level_rank('manage')", ">= private.level_rank('edit')"
    ),
    Loosened("my_managed_roots", "s.level = 'manage' and"),
    # shares
    Loosened("shares_of", "s.grantee_id = shares_of.user_id and"),
    Loosened("shares_of", "s.grantee_id is null and"),
    Loosened(
        "shares_of",
        "and s.grantee_email = private.email_of(shares_of.user_id)",
        "and s.grantee_email is not null",
    ),
    Loosened(
        "shares_of",
        "s.group_id = any(private.group_ids_of(shares_of.user_id))",
        "s.group_id is not null",
    ),
    *[Loosened("shares_of", UNEXPIRED, "", nth, 3) for nth in (1, 2, 3)],
    Loosened("my_share_ids", "where private.is_active()"),
    Loosened("my_share_ids", "and n.trashed_at is null"),
    # links
    Loosened(
        "my_link",
        "g.grant_hash = sha256(convert_to( nullif(current_setting('request.headers', true), '')::json ->> 'x-share-grant', 'UTF8' ))",
        "true",
    ),
    Loosened("my_link", "and g.expires_at > now()"),
    Loosened("my_link", "and coalesce(private.link_problem(l), 'used_up') = 'used_up'"),
    Loosened("link_problem", "(link).revoking_at is not null", "false"),
    Loosened("link_problem", "(link).expires_at <= now()", "false"),
    Loosened("link_problem", "n.trashed_at is not null", "false"),
    Loosened("link_problem", "< private.level_rank('manage')", "< private.level_rank('edit')"),
    Loosened("link_problem", "private.user_level((link).created_by, n)", "'owner'"),
    # levels
    Loosened(
        "user_level",
        "private.owner_level(user_level.user_id, (user_level.node).owner_id)",
        "'owner'",
    ),
    Loosened("user_level", "where s.node_id = any((user_level.node).path)"),
    Loosened("user_level", "and private.user_has_permission(user_level.user_id, 'view_documents')"),
    Loosened("user_level", "desc"),
    Loosened("my_level", "k.node_id = any((my_level.node).path) and"),
    Loosened("my_level", "case when auth.uid() is null then 'view' else k.level end", "k.level"),
    Loosened("my_level", "and (include_trashed or (my_level.node).trashed_at is null)"),
    Loosened("my_level", "and (my_level.node).purged_at is null"),
    Loosened("my_level", "desc"),
    Loosened("require_reader", "and (private.my_link()).id is not null"),
    Loosened("require_permission", "perform private.require_reader();"),
    Loosened("require_writer", "and (private.my_link()).id is not null", "and false"),
    Loosened("require_writer", "not private.has_permission('edit_documents')", "false"),
    Loosened("find_node", "v_level is null", "v_node.id is null"),
    Loosened("find_node", "private.level_rank(v_level) < private.level_rank(level)", "false"),
    Loosened("find_node", "perform private.require_reader();"),
    Both(  # who locks something asks for the role before that, too
        Loosened("require_level", "perform private.require_writer();", "null;"),
        Loosened("restore_version", "perform private.require_writer();", "null;"),
    ),
    Loosened(
        "require_purge",
        "case when private.has_permission('delete_documents') then 'edit' else 'manage' end",
        "'edit'",
    ),
    Loosened(
        "require_trashed",
        "private.require_level(node_id, 'edit', true)",
        "private.require_level(node_id, 'view', true)",
    ),
    Loosened(
        "require_unpurged",
        "and private.level_rank(private.user_level(auth.uid(), n)) >= private.level_rank('manage')",
    ),
    Loosened("require_move", "(node).owner_id <> target_owner_id", "false"),
    # reading
    Loosened("shared_roots", "where private.user_has_permission(auth.uid(), 'view_documents')"),
    Loosened("granted_roots", "and private.is_active()"),
    Loosened("is_readable", "(trashed_at IS NULL) AND"),
    Loosened("is_readable", "(owner_id = ANY (owner_ids))", "true"),
    Loosened("is_readable", "(path && roots)", "true"),
    Loosened("is_readable", "(path && roots)", "(path[cardinality(path)] = ANY (roots))"),
    *[Loosened("reads_object", "and b.key = reads_object.key", "", nth, 2) for nth in (1, 2)],
    *[
        Loosened(
            "reads_object",
            "and private.is_readable(n.owner_id, n.path, n.trashed_at, owner_ids, roots)",
            "",
            nth,
            2,
        )
        for nth in (1, 2)
    ],
    Loosened("open_object", "not private.reads_object(bucket, key, owner_ids, roots)", "false"),
    Loosened("open_object", "private.shared_roots()", "roots"),
    Loosened("open_object", "v_link.id is null", "true"),
    Loosened("count_download", "and (l.max_downloads is null or l.downloads < l.max_downloads)"),
    Loosened("trash_roots", ">= private.level_rank('edit')", ">= private.level_rank('view')", 1, 2),
    Loosened("trash_roots", ">= private.level_rank('edit')", ">= private.level_rank('view')", 2, 2),
    Loosened("trash_roots", "t.trashed_by = auth.uid() and"),
    Loosened("trash_roots", "and t.purged_at is null", "", 1, 2),
    Loosened("is_trashed", "n.trashed_at is not null", "false"),
    # bytes
    Both(  # the trigger refuses as well, with a text that says why
        Loosened("holds_ticket", "(private.find_ticket(key, auth.uid())).id is not null", "true"),
        Loosened("tg_objects__guard_upload", "v_upload.id is null", "false"),
    ),
    Loosened("find_ticket", "u.key = find_ticket.key and"),
    Loosened("find_ticket", "and u.created_by = find_ticket.user_id"),
    Loosened(
        "find_ticket", "and private.user_has_permission(find_ticket.user_id, 'edit_documents')"
    ),
    Loosened(
        "find_ticket",
        "(u.state = 'completed' or (u.state in ('open', 'uploading') and u.expires_at > now()))",
        "u.expires_at > now()",
    ),
    Loosened("find_ticket", "and u.expires_at > now()"),
    Loosened(
        "tg_objects__guard_upload", "< private.level_rank('edit')", "< private.level_rank('view')"
    ),
    # search; the hits pass the predicate once more, so either check alone makes up for the other
    Loosened("hybrid_search", "perform private.require_permission('query');"),
    Loosened("search_pages", "perform private.require_permission('query');"),
    Loosened("search_images", "perform private.require_permission('query');"),
    Loosened(
        "readable_hits",
        "private.is_readable( n.owner_id, n.path, n.trashed_at, (select private.my_owner_ids()), (select private.granted_roots()) )",
        "true",
    ),
    *[
        Both(
            Loosened("page_places", where, "where true"),
            Loosened(search, HIT, "true"),
        )
        for where in ("where t.owner_id = any($1)",)
        for search in ("search_pages", "search_images")
    ],
    Both(
        Loosened(
            "search_scope",
            "and private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots); v_scope",
            "; v_scope",
        ),
        Loosened("find_candidates", HIT, "true"),
    ),
    Both(
        Loosened(
            "search_scope",
            "n.owner_id = any(v_scope.owner_ids) and n.trashed_at is not null",
            "false",
        ),
        Loosened("find_candidates", HIT, "true"),
    ),
]

# What makes searches right, beside what anybody may read: noticed by comparing them with brute
# force. Where two places ask for the same, both are loosened.
SHARED_WITHOUT_RULE = Loosened(
    "search_scope",
    "and private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots); v_scope",
    "; v_scope",
)
SEARCHES: list[Loosened | Both] = [
    # the scope
    Loosened("search_scope", "where n.path && v_scope.roots", "where false"),
    Loosened("search_scope", "and not n.owner_id = any(v_scope.owner_ids)"),
    Loosened("search_scope", "private.my_owner_ids()", "'{}'"),
    Loosened("search_scope", "private.granted_roots()", "private.shared_roots()"),
    Loosened("filtered_ids", "' and n.path @> array[$5]'", "''"),
    Loosened("filtered_ids", "' and n.owner_id = any($9)'", "''"),
    Loosened(
        "filtered_ids",
        "' and strpos(n.name, ''.'') > 0 and lower(split_part(n.name, ''.'', -1)) = any($6)'",
        "''",
    ),
    Loosened("file_clause", "' and t.file_id = any((select $3)::uuid[])'", "''"),
    Loosened("file_clause", "' and (t.file_id in (select unnest($4))) is not true'", "''"),
    Loosened("chunk_clause", "' and c.page >= ($5).page_from'", "''"),
    Loosened("mark_clause", "between $10 and $11", "<= $11"),
    Loosened("passes_chunk_filters", "c.page >= (scope).page_from", "true"),
    Loosened("passes_chunk_filters", "c.id = passes_chunk_filters.chunk_id", "true"),
    Loosened("has_chunk_filters", "(scope).page_from", "null"),
    Loosened("freshness", "and n.trashed_at is null", "", 1, 2),
    Loosened("freshness", "and n.owner_id = any((scope).owner_ids)"),
    Loosened("freshness", "s.owner_id and n.id = s.id", "s.owner_id"),
    # words
    Loosened("weigh_query", "where s.owner_id = weigh_query.owner_id", "limit 1"),
    Loosened("weigh_query", "where f.file_id = any(weigh_query.file_ids)", "", 2, 2),
    Loosened(
        "find_terms",
        "t.owner_id = find_terms.owner_id and t.lexeme = a.lexeme",
        "t.lexeme = a.lexeme",
    ),
    Loosened(
        "find_terms",
        "and t.file_id = any((select find_terms.file_ids)::uuid[])",
        "",
    ),
    Loosened("scoring", "'t.owner_id = $9'", "'true'"),
    Loosened("scoring", "'and t.file_id = any(p.file_ids)'", "''"),
    # vectors
    Loosened("search_dense", "t.owner_id = any($1)", "true"),
    Loosened(
        "search_dense",
        "b.owner_id = f.owner_id and b.file_id = f.file_id",
        "b.owner_id = f.owner_id",
    ),
    Loosened("search_hnsw", "t.owner_id = any($1)", "true"),
    Loosened("search_hnsw", "private.file_clause(scope)", "''"),
    # names
    Both(
        Both(
            Loosened(
                "search_names",
                "on n.owner_id = m.owner_id and n.word = m.word",
                "on n.word = m.word",
                2,
                3,
            ),
            Loosened(
                "search_names",
                "on m.owner_id = n.owner_id and m.word = n.word",
                "on m.word = n.word",
            ),
        ),
        Loosened("search_files", HIT, "true"),
    ),
    Loosened(
        "search_names",
        "on n.owner_id = m.owner_id and n.word = m.word",
        "on n.word = m.word",
        1,
        3,
    ),
    Both(SHARED_WITHOUT_RULE, Loosened("search_files", HIT, "true")),
    Both(
        SHARED_WITHOUT_RULE,
        Loosened(
            "related_documents",
            "private.is_readable( n.owner_id, n.path, n.trashed_at, (v_call.scope).owner_ids, (v_call.scope).roots )",
            "true",
        ),
    ),
    *[
        Both(SHARED_WITHOUT_RULE, Loosened(search, HIT, "true"))
        for search in ("find_candidates", "search_pages", "search_images")
    ],
    # fusion
    Loosened("fused_score", "coalesce((keyword).score, (legs).keyword_rest)", "(keyword).score"),
    Loosened("fused_score", "coalesce((vector).score, (legs).vector_rest)", "(vector).score"),
    Loosened("fused_score", "(options).rrf_k + (vector).place", "(options).rrf_k"),
    # hits
    Loosened(
        "hits_json",
        "private.is_readable( a.owner_id, a.path, a.trashed_at, ((hits_json.request).scope).owner_ids, ((hits_json.request).scope).roots )",
        "true",
    ),
    Loosened(
        "readable_path",
        "private.is_readable( a.owner_id, a.path, a.trashed_at, readable_path.owner_ids, readable_path.roots )",
        "true",
    ),
    Loosened(
        "find_candidates",
        "c.version_id = private.version_then(v_scope, n.id, n.head_version_id)",
        "c.file_id = n.id",
    ),
    # what is related
    Loosened(
        "related_documents",
        "(v_call.scope).hidden_file_ids || v_file.id",
        "(v_call.scope).hidden_file_ids",
    ),
    Loosened(
        "related_documents",
        "private.require_level(file_id, 'view')",
        "(select n from public.nodes as n where n.id = file_id)",
    ),
    Loosened("file_vector", "where t.file_id = $1"),
    Loosened("key_terms", "c.version_id = key_terms.version_id", "true"),
    # pictures
    *[
        Both(
            Loosened("page_places", "where t.owner_id = any($1)", "where true"),
            Loosened(search, HIT, "true"),
        )
        for search in ("search_pages", "search_images")
    ],
    Loosened(
        "page_places",
        "on t.owner_id = f.owner_id and t.file_id = f.file_id",
        "on t.owner_id = f.owner_id",
    ),
    Loosened("page_clause", "' and t.file_id = any($3)'", "''"),
    Loosened("page_clause", "' and not t.file_id = any($4)'", "''"),
    Loosened("page_clause", "' and t.page >= ($5).page_from'", "''"),
]
