-- Saved documents: text that becomes a file without its client ever speaking to Storage. A worker writes the bytes,
-- under a ticket like anybody else's.

insert into private.settings (key, value, description) values
('documents.max_bytes', '5242880', 'Longest text that save_document takes, in bytes of UTF-8.'),
('documents.write_s', '2592000', 'So long, in seconds, workers try to write a saved document before it is given up.');

create table private.saved_documents (
    upload_id uuid primary key references public.uploads on delete cascade,
    content bytea not null,
    attempts integer not null default 0,
    run_after timestamptz not null default now()
);
comment on table private.saved_documents is
'Bytes of saved documents on their way to Storage; a row goes when its ticket ends, whichever way.';
create index saved_documents_run_after_idx on private.saved_documents (run_after);
alter table private.saved_documents enable row level security;

create function private.is_document(upload public.uploads) returns boolean
language sql stable
security invoker
set search_path = ''
as $$ select exists (select 1 from private.saved_documents as d where d.upload_id = (upload).id); $$;
comment on function private.is_document(public.uploads) is 'Whether a ticket is that of a saved document.';

create function private.tg_uploads__forget_document() returns trigger
language plpgsql volatile
security definer -- runs for whoever ends the ticket
set search_path = ''
as $$
begin
    delete from private.saved_documents as d where d.upload_id = new.id;
    return null; -- after trigger
end;
$$;
comment on function private.tg_uploads__forget_document() is 'What is written, or will not be, need not be kept.';

create trigger _500_forget_document
after update of state on public.uploads
for each row when (new.state not in ('open', 'uploading'))
execute function private.tg_uploads__forget_document();

create function private.save_document(
    title text, content text, metadata jsonb, folder_id uuid, on_conflict text
) returns jsonb
language plpgsql volatile
security definer -- clients only read nodes and tickets
set search_path = ''
as $$
declare
    v_name text := title;
    v_bytes bytea := convert_to(content, 'UTF8');
    v_ticket jsonb;
begin
    perform private.require_writer();
    if content is null then
        perform private.raise_invalid('content', 'The content must be the text of the document.');
    end if;
    if octet_length(v_bytes) > (private.setting('documents.max_bytes'))::integer then
        perform private.raise_error(
            'FILE_TOO_LARGE', 'The text is longer than can be saved like this.',
            jsonb_build_object(
                'limit', (private.setting('documents.max_bytes'))::integer, 'requested', octet_length(v_bytes)
            ),
            'Upload it as a file.'
        );
    end if;
    perform private.check_metadata(metadata);
    if nullif(btrim(title), '') is null then
        perform private.raise_invalid('title', 'The title must not be empty.');
    end if;
    if coalesce(private.extension_of(v_name), '') not in ('txt', 'md', 'markdown', 'html', 'csv', 'json') then
        v_name := v_name || '.txt';
    end if;
    v_ticket := private.begin_upload(
        v_name, folder_id, octet_length(v_bytes),
        case private.extension_of(v_name)
            when 'md' then 'text/markdown' when 'markdown' then 'text/markdown' when 'html' then 'text/html'
            when 'csv' then 'text/csv' when 'json' then 'application/json' else 'text/plain'
        end,
        encode(sha256(v_bytes), 'hex'), on_conflict, null, null
    );
    if v_ticket ? 'skipped' then
        return v_ticket;
    end if;
    if not (v_ticket ->> 'deduplicated')::boolean then
        insert into private.saved_documents (upload_id, content)
        values ((v_ticket ->> 'upload_id')::uuid, v_bytes);
        update public.uploads as u
        set expires_at = now() + make_interval(secs => (private.setting('documents.write_s'))::double precision)
        where u.id = (v_ticket ->> 'upload_id')::uuid;
        perform pg_notify('narwhal_jobs', '');
    end if;
    if metadata <> '{}' then
        perform private.set_metadata((v_ticket ->> 'file_id')::uuid, metadata, null);
    end if;
    return jsonb_build_object(
        'file_id', v_ticket -> 'file_id', 'version_id', v_ticket -> 'version_id', 'name', v_ticket -> 'name',
        'deduplicated', v_ticket -> 'deduplicated'
    );
end;
$$;
comment on function private.save_document(text, text, jsonb, uuid, text) is 'Behind public.save_document.';
grant execute on function private.save_document(text, text, jsonb, uuid, text) to anon, authenticated;

create function public.save_document(
    title text,
    content text,
    metadata jsonb default '{}',
    folder_id uuid default null,
    on_conflict text default 'fail'
) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.save_document(title, content, metadata, folder_id, on_conflict); $$;
comment on function public.save_document(text, text, jsonb, uuid, text) is
'Save a text as a file without uploading anything: {file_id, version_id, name, deduplicated}.

title becomes the name; without an extension of a text format (txt, md, html, csv, json) it gets .txt. content: at most
documents.max_bytes of UTF-8. metadata as in set_metadata; {} leaves what an existing file has. folder_id: null for your
own root. on_conflict, when the name exists: fail, rename, version (the text becomes the newest one, what was there
before stays in the history) or skip, which answers {skipped: true, file_id, name}. A worker stores the bytes; until
then the file is "uploading", and a version that is uploaded meanwhile counts as older. Raises INVALID_ARGUMENT (field title, content, metadata), FILE_TOO_LARGE, NOT_FOUND, FORBIDDEN,
CONFLICT_NAME {existing_id, suggested}, QUOTA_EXCEEDED {used, reserved, limit, requested}.';
grant execute on function public.save_document(text, text, jsonb, uuid, text) to anon, authenticated;

-- What workers do ------------------------------------------------------------------------------

create function private.document_writer(object_key text) returns uuid
language sql stable
security invoker
set search_path = ''
as $$
    select u.created_by
    from public.uploads as u
    inner join public.nodes as n on n.id = u.file_id and n.trashed_at is null
    where u.key = document_writer.object_key and (u.mode = 'worker' or private.is_document(u));
$$;
comment on function private.document_writer(text) is
'For whom a worker writes this object of the bucket files; null when it is neither a saved document nor taken out of
another file. Storage names nobody when the service itself writes; clients that are nobody may write nothing.';

create function private.claim_documents(max_documents integer) returns setof jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
begin
    return query
    with due as (
        select d.upload_id
        from private.saved_documents as d
        inner join public.uploads as u on u.id = d.upload_id
        inner join public.nodes as n on n.id = u.file_id and n.trashed_at is null -- in the trash they wait
        where d.run_after <= now()
        order by d.run_after
        limit max_documents
        for update of d skip locked
    ), claimed as (
        update private.saved_documents as d
        set attempts = d.attempts + 1, run_after = now() + make_interval(secs => 10 * 2 ^ least(d.attempts, 8))
        from due
        where d.upload_id = due.upload_id
        returning d.upload_id, d.content
    )
    select jsonb_build_object(
        'bucket', u.bucket, 'key', u.key, 'mime', u.mime, 'content', encode(c.content, 'base64')
    )
    from claimed as c inner join public.uploads as u on u.id = c.upload_id;
end;
$$;
comment on function private.claim_documents(integer) is
'Saved documents to write to Storage now: {bucket, key, mime, content}, content in base64. Each comes again, later and
later, until Storage has it.';
grant execute on function private.claim_documents(integer) to narwhal_worker;
