-- Reading options: how a file is to be read, and reading it again so that the old text serves until the new is whole.

create table private.ocr_languages (
    code text primary key check (code ~ '^[a-z]{3}(_[a-z]+)?$'),
    engine text not null,
    seen_at timestamptz not null default now()
);
comment on table private.ocr_languages is
'Languages that OCR reads here, by Tesseract''s codes. Those of the packaged models are always there; workers that have
Tesseract add what they found installed.';
alter table private.ocr_languages enable row level security;

insert into private.ocr_languages (code, engine)
select
    l.code,
    'rapidocr' as engine
from unnest(array[
    'cat', 'ces', 'chi_sim', 'chi_tra', 'dan', 'deu', 'eng', 'est', 'fin', 'fra', 'hrv', 'hun', 'isl', 'ita', 'jpn',
    'lav', 'lit', 'nld', 'nor', 'pol', 'por', 'ron', 'slk', 'slv', 'spa', 'swe', 'tur'
]) as l (code);

create function private.report_ocr_languages(codes text[]) returns void
language sql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
    insert into private.ocr_languages (code, engine)
    select distinct c, 'tesseract' from unnest(codes) as c where c ~ '^[a-z]{3}(_[a-z]+)?$'
    on conflict (code) do update set seen_at = now();
$$;
comment on function private.report_ocr_languages(text[]) is
'A worker tells which languages its Tesseract has: from then on files may ask for them.';
grant execute on function private.report_ocr_languages(text[]) to narwhal_worker;

-- Passwords: written by whoever may edit the file, read by workers, shown to nobody ------------------

create table private.file_passwords (
    file_id uuid not null references public.nodes on delete cascade,
    password text not null check (char_length(password) between 1 and 255),
    given_at timestamptz not null default now(),
    primary key (file_id, password)
);
comment on table private.file_passwords is
'Passwords that people gave for locked documents: readers try those of the file. No client can read them, and nothing
logs them.';
alter table private.file_passwords enable row level security;

create function private.keep_password(file_id uuid, password text) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into private.file_passwords (file_id, password, given_at)
    select keep_password.file_id, keep_password.password, clock_timestamp()
    where keep_password.password is not null
    on conflict on constraint file_passwords_pkey do update set given_at = excluded.given_at;
    delete from private.file_passwords as p
    where p.file_id = keep_password.file_id
        and 5 <= (
            select count(*) from private.file_passwords as newer
            where newer.file_id = p.file_id and newer.given_at > p.given_at
        );
$$;
comment on function private.keep_password(uuid, text) is
'Keeps a password of a file, and of those before it the newest: versions may have different ones.';

create function private.job_passwords(job_id uuid, lease_token uuid) returns setof text
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    return query
    select p.password from private.file_passwords as p
    where p.file_id = v_job.file_id
    order by p.given_at desc;
end;
$$;
comment on function private.job_passwords(uuid, uuid) is 'The passwords to try on the file of a job, the newest first.';
grant execute on function private.job_passwords(uuid, uuid) to narwhal_worker;

-- Options --------------------------------------------------------------------------------------

create function private.check_ocr_languages(field text, languages jsonb) returns void
language plpgsql stable
security definer -- the list of languages is closed to clients; the error tells it
set search_path = ''
as $$
declare
    v_supported text[] := array(select l.code from private.ocr_languages as l order by l.code);
begin
    if languages is null or languages = 'null' then
        return;
    end if;
    if jsonb_typeof(languages) <> 'array' or jsonb_array_length(languages) not between 1 and 10
        or not languages <@ to_jsonb(v_supported) then
        perform private.raise_invalid(
            field, 'Languages for OCR are a list of one to ten of the supported codes, the commonest first.',
            jsonb_build_object('supported', v_supported, 'expected', v_supported)
        );
    end if;
end;
$$;
comment on function private.check_ocr_languages(text, jsonb) is
'Raises INVALID_ARGUMENT {field, supported} unless it is a list of languages that OCR reads here; null is none.';
grant execute on function private.check_ocr_languages(text, jsonb) to authenticated; -- checks their preferences

create function private.check_chunk_sizes(options jsonb) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_size integer;
    v_overlap integer;
begin
    if coalesce(options -> 'chunk_size', 'null') <> 'null' and (
        jsonb_typeof(options -> 'chunk_size') <> 'number' or options ->> 'chunk_size' !~ '^[0-9]{2,4}$'
        or (options ->> 'chunk_size')::integer not between 50 and 8000
    ) then
        perform private.raise_invalid(
            'options.chunk_size', 'Chunks have 50 to 8000 characters.', jsonb_build_object('expected', '50 to 8000')
        );
    end if;
    v_size := coalesce(options ->> 'chunk_size', private.setting('chunks.size')::text)::integer;
    if coalesce(options -> 'chunk_overlap', 'null') <> 'null' and (
        jsonb_typeof(options -> 'chunk_overlap') <> 'number' or options ->> 'chunk_overlap' !~ '^[0-9]{1,4}$'
    ) then
        perform private.raise_invalid(
            'options.chunk_overlap', 'The overlap is a number of characters.',
            jsonb_build_object('expected', format('0 to %s', v_size - 1))
        );
    end if;
    v_overlap := coalesce(options ->> 'chunk_overlap', private.setting('chunks.overlap')::text)::integer;
    if v_overlap >= v_size then
        perform private.raise_invalid(
            'options.chunk_overlap', format('Chunks of %s characters cannot overlap by %s.', v_size, v_overlap),
            jsonb_build_object('expected', format('0 to %s', v_size - 1))
        );
    end if;
end;
$$;
comment on function private.check_chunk_sizes(jsonb) is
'Raises INVALID_ARGUMENT unless chunk_size and chunk_overlap are lengths that go together, with what is set for all
where one is not given.';

create function private.check_reading_options(options jsonb, before jsonb default '{}') returns jsonb
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_known text[] := array['ocr_languages', 'chunk_size', 'chunk_overlap', 'password'];
    v_key text;
    v_merged jsonb;
begin
    if jsonb_typeof(coalesce(options, '{}')) <> 'object' then
        perform private.raise_invalid('options', 'Options are an object.', jsonb_build_object('expected', v_known));
    end if;
    for v_key in select k from jsonb_object_keys(coalesce(options, '{}')) as k loop
        if v_key <> all(v_known) then
            perform private.raise_invalid(
                'options.' || left(v_key, 50), 'There is no such option.', jsonb_build_object('expected', v_known)
            );
        end if;
    end loop;
    -- the message does not repeat what was given
    if coalesce(options -> 'password', 'null') <> 'null' and (
        jsonb_typeof(options -> 'password') <> 'string'
        or char_length(options ->> 'password') not between 1 and 255
        or options ->> 'password' ~ '[[:cntrl:]]'
    ) then
        perform private.raise_invalid(
            'options.password', 'A password has 1 to 255 characters.', '{"expected": "1 to 255 characters"}'
        );
    end if;
    perform private.check_ocr_languages('options.ocr_languages', options -> 'ocr_languages');
    v_merged := jsonb_strip_nulls(before || coalesce(options, '{}') - 'password');
    perform private.check_chunk_sizes(v_merged);
    return v_merged;
end;
$$;
comment on function private.check_reading_options(jsonb, jsonb) is
'The options that a version is to be read with: those before, with the given ones in their place; null takes one back.
The password is not among them. Raises INVALID_ARGUMENT (field options.…, expected).';

create function private.reading_options(reading jsonb, owner_id uuid) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_strip_nulls(jsonb_build_object(
        'chunk_size', private.setting('chunks.size'),
        'chunk_overlap', private.setting('chunks.overlap'),
        'ocr_languages', (
            select p.preferences -> 'ocrLanguages'
            from public.user_profiles as p
            where p.id = reading_options.owner_id
        )
    )) || reading_options.reading;
$$;
comment on function private.reading_options(jsonb, uuid) is
'How to read: {chunk_size, chunk_overlap, ocr_languages}, a version''s own options before those of its owner''s
preferences and the settings. Without languages, OCR finds them out.';

-- Drafts: what a version that is in service is read into again --------------------------------------

create table private.rereads (
    version_id uuid primary key references public.file_versions on delete cascade,
    has_pages boolean not null default false,
    language text,
    is_paged boolean,
    page_count integer,
    truncated_by text,
    started_at timestamptz not null default now()
);
comment on table private.rereads is
'Versions with text that are read again. Their stages write drafts; search finds the old text until the last stage that
is required has ended, and then the new.';
comment on column private.rereads.has_pages is 'Whether its pages are read anew, too; otherwise only its chunks.';
alter table private.rereads enable row level security;

create table private.draft_pages (
    like public.pages including defaults including constraints,
    primary key (version_id, page),
    foreign key (file_id) references public.nodes on delete cascade,
    foreign key (version_id) references public.file_versions on delete cascade
);
comment on table private.draft_pages is 'Pages that are not in service yet.';
create index draft_pages_file_id_idx on private.draft_pages (file_id);
alter table private.draft_pages enable row level security;

create table private.draft_chunks (
    like public.chunks including defaults including constraints,
    primary key (version_id, idx),
    foreign key (file_id) references public.nodes on delete cascade,
    foreign key (version_id) references public.file_versions on delete cascade
);
comment on table private.draft_chunks is
'Chunks that are not in service yet: of a version that is read again, or of one too long for one call.';
create index draft_chunks_file_id_idx on private.draft_chunks (file_id);
create index draft_chunks_text_hash_idx on private.draft_chunks (text_hash);
alter table private.draft_chunks enable row level security;

create function private.is_reread(version_id uuid) returns boolean
language sql stable
security invoker
set search_path = ''
as $$ select exists (select 1 from private.rereads as r where r.version_id = is_reread.version_id); $$;
comment on function private.is_reread(uuid) is 'Whether a version serves its old text while it is read again.';

create function private.text_hashes(version_ids uuid[]) returns setof bytea
language sql stable
security invoker
set search_path = ''
as $$
    select c.text_hash from public.chunks as c where c.version_id = any(version_ids)
    union
    select c.text_hash from private.draft_chunks as c where c.version_id = any(version_ids);
$$;
comment on function private.text_hashes(uuid[]) is 'The texts of versions, those that are not in service yet included.';

create function private.begin_reread(version_id uuid, stage text) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_has_pages boolean;
begin
    if stage not in ('detect', 'extract', 'ocr', 'transcribe', 'chunk') then
        return;
    end if;
    insert into private.rereads (version_id)
    select v.id
    from public.file_versions as v
    where v.id = begin_reread.version_id
        and v.status = 'ready'
        and exists (select 1 from public.pages as p where p.version_id = v.id)
    on conflict do nothing;
    select r.has_pages into v_has_pages from private.rereads as r where r.version_id = begin_reread.version_id;
    if stage = 'ocr' and not v_has_pages then
        insert into private.draft_pages select p.* from public.pages as p where p.version_id = begin_reread.version_id;
        update private.rereads as r
        set
            has_pages = true, language = v.language, is_paged = v.is_paged, page_count = v.page_count,
            truncated_by = v.truncated_by
        from public.file_versions as v
        where r.version_id = begin_reread.version_id and v.id = r.version_id;
    end if;
end;
$$;
comment on function private.begin_reread(uuid, text) is
'Before a stage of a version runs again: when the version is ready, what it makes becomes a draft. A draft that was
begun before goes on.';

create function private.drop_reread(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_texts bytea[];
begin
    delete from private.rereads as r where r.version_id = drop_reread.version_id;
    delete from private.draft_pages as p where p.version_id = drop_reread.version_id;
    delete from private.draft_transcripts as t where t.version_id = drop_reread.version_id;
    v_texts := array(select c.text_hash from private.draft_chunks as c where c.version_id = drop_reread.version_id);
    delete from private.draft_chunks as c where c.version_id = drop_reread.version_id;
    perform private.forget_texts(array[n.owner_id], v_texts)
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = drop_reread.version_id;
end;
$$;
comment on function private.drop_reread(uuid) is 'Throws away what reading a version again has made so far.';

create function private.finish_reread(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_reread private.rereads;
    v_old_texts bytea[];
begin
    select r.* into v_reread from private.rereads as r where r.version_id = finish_reread.version_id;
    perform private.unserve_version(version_id);
    v_old_texts := array(select c.text_hash from public.chunks as c where c.version_id = finish_reread.version_id);
    delete from public.chunks as c where c.version_id = finish_reread.version_id;
    insert into public.chunks select c.* from private.draft_chunks as c where c.version_id = finish_reread.version_id;
    if v_reread.has_pages then
        delete from public.pages as p where p.version_id = finish_reread.version_id;
        insert into public.pages select p.* from private.draft_pages as p where p.version_id = finish_reread.version_id;
        update public.file_versions as v
        set
            language = v_reread.language, is_paged = v_reread.is_paged, page_count = v_reread.page_count,
            truncated_by = v_reread.truncated_by
        where v.id = finish_reread.version_id;
    end if;
    perform private.publish_transcript(version_id);
    perform private.drop_reread(version_id);
    perform private.forget_texts(array[n.owner_id], v_old_texts)
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = finish_reread.version_id;
end;
$$;
comment on function private.finish_reread(uuid) is
'Puts the drafts of a version in the place of its pages and chunks. The caller puts it in service again, in the same
transaction.';

-- What the stages read and write -----------------------------------------------------------------

create function private.pages_in_work(version_id uuid) returns setof public.pages
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if exists (select 1 from private.rereads as r where r.version_id = pages_in_work.version_id and r.has_pages) then
        return query select p.* from private.draft_pages as p where p.version_id = pages_in_work.version_id;
    else
        return query select p.* from public.pages as p where p.version_id = pages_in_work.version_id;
    end if;
end;
$$;
comment on function private.pages_in_work(uuid) is 'The pages that the stages of a version work on.';

create function private.chunks_in_work(version_id uuid) returns setof public.chunks
language sql stable
security invoker
set search_path = ''
as $$
    select c.* from public.chunks as c where c.version_id = chunks_in_work.version_id
    union all
    select c.* from private.draft_chunks as c where c.version_id = chunks_in_work.version_id;
$$;
comment on function private.chunks_in_work(uuid) is
'The chunks of a version, those in service and the drafts: both need vectors.';

create function private.put_pages(version_id uuid, pages jsonb, is_first boolean) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_rows public.pages[];
begin
    v_rows := array(
        select row(
            gen_random_uuid(), v.file_id, v.id, r.page, r.text, r.width, r.height, r.source,
            coalesce(r.needs_ocr, false), r.layout
        )::public.pages
        from public.file_versions as v
        cross join jsonb_to_recordset(put_pages.pages) as r (
            page integer, text text, width real, height real, source text, needs_ocr boolean, layout jsonb
        )
        where v.id = put_pages.version_id
    );
    if private.is_reread(version_id) then
        if is_first then
            delete from private.draft_pages as p where p.version_id = put_pages.version_id;
            update private.rereads as r set has_pages = true where r.version_id = put_pages.version_id;
        end if;
        insert into private.draft_pages select r.* from unnest(v_rows) as r;
    else
        if is_first then
            delete from public.pages as p where p.version_id = put_pages.version_id;
        end if;
        insert into public.pages select r.* from unnest(v_rows) as r;
    end if;
end;
$$;
comment on function private.put_pages(uuid, jsonb, boolean) is
'Stores pages [{page, text, width, height, source, needs_ocr, layout}] of a version, as a draft when it is read again.
is_first: those of an earlier run go.';

create function private.store_pages(job_id uuid, lease_token uuid, pages jsonb, is_first boolean) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    perform private.put_pages(v_job.version_id, pages, is_first);
    update public.ingest_jobs as j
    set pages_done = case when is_first then 0 else j.pages_done end + jsonb_array_length(store_pages.pages)
    where j.id = job_id;
end;
$$;
comment on function private.store_pages(uuid, uuid, jsonb, boolean) is
'Stores some pages of a long file as they are read, as put_pages takes them; finish_extract follows with null pages.';
grant execute on function private.store_pages(uuid, uuid, jsonb, boolean) to narwhal_worker;

create function private.describe_reading(
    version_id uuid, language text, is_paged boolean, page_count integer, truncated_by text
) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if private.is_reread(version_id) then
        update private.rereads as r
        set
            language = describe_reading.language, is_paged = describe_reading.is_paged,
            page_count = describe_reading.page_count, truncated_by = describe_reading.truncated_by
        where r.version_id = describe_reading.version_id;
    else
        update public.file_versions as v
        set
            language = describe_reading.language, is_paged = describe_reading.is_paged,
            page_count = describe_reading.page_count, truncated_by = describe_reading.truncated_by
        where v.id = describe_reading.version_id;
    end if;
end;
$$;
comment on function private.describe_reading(uuid, text, boolean, integer, text) is
'Records what reading found out about a version, with its pages: in service, or with the draft.';

create function private.new_chunks(version_id uuid, chunks jsonb) returns setof public.chunks
language sql volatile
security invoker
set search_path = ''
as $$
    select
        gen_random_uuid(), v.file_id, v.id, r.idx, r.page, r.content, r.char_start, r.char_end,
        coalesce(r.bboxes, '[]'), r.heading, r.context, r.language, r.time_range_ms, 1::real,
        sha256(convert_to(private.embedded_text(r.content, r.context), 'UTF8'))
    from public.file_versions as v
    cross join jsonb_to_recordset(new_chunks.chunks) as r (
        idx integer, page integer, content text, char_start integer, char_end integer, bboxes jsonb,
        heading text, context text, language text, time_range_ms int4range
    )
    where v.id = new_chunks.version_id;
$$;
comment on function private.new_chunks(uuid, jsonb) is
'Rows for chunks [{idx, page, content, char_start, char_end, bboxes, heading, context, language, time_range_ms}].';

create function private.store_chunks(job_id uuid, lease_token uuid, chunks jsonb, is_first boolean) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    if is_first then
        delete from private.draft_chunks as c where c.version_id = v_job.version_id;
    end if;
    insert into private.draft_chunks select c.* from private.new_chunks(v_job.version_id, store_chunks.chunks) as c;
end;
$$;
comment on function private.store_chunks(uuid, uuid, jsonb, boolean) is
'Keeps some chunks of a long file until finish_chunk follows with null chunks. is_first: those of an earlier run go.';
grant execute on function private.store_chunks(uuid, uuid, jsonb, boolean) to narwhal_worker;

-- Reading it again -----------------------------------------------------------------------------

create function private.reprocess_file(file_id uuid, options jsonb) returns jsonb
language plpgsql volatile
security definer -- clients only read versions and jobs
set search_path = ''
as $$
declare
    v_file public.nodes;
    v_version public.file_versions;
    v_reading jsonb;
    v_stage text;
begin
    perform private.require_writer();
    perform from public.nodes as n where n.id = reprocess_file.file_id for no key update;
    v_file := private.require_level(file_id, 'edit');
    if v_file.kind <> 'file' then
        perform private.raise_invalid('file_id', 'Only files are read.');
    end if;
    select v.* into v_version
    from public.file_versions as v
    where v.file_id = reprocess_file.file_id
    order by v.no desc
    limit 1;
    v_reading := private.check_reading_options(options, coalesce(v_version.reading, '{}'));
    if v_version.id is null or v_version.status in ('queued', 'processing', 'rejected') then
        perform private.raise_error(
            'CONFLICT_STATE', 'The file is being read, or there is nothing to read.',
            jsonb_build_object('status', coalesce(v_version.status, v_file.status)),
            'Wait until it is ready, or cancel_ingest first.'
        );
    end if;
    perform private.keep_password(file_id, options ->> 'password');
    update public.file_versions as v set reading = v_reading where v.id = v_version.id;

    -- only how it is cut has changed: its pages stay, unless what was asked before has failed
    v_stage := case
        when v_version.status = 'ready'
            and not private.is_reread(v_version.id)
            and options <> '{}' and options - array['chunk_size', 'chunk_overlap'] = '{}'
            and exists (
                select 1 from public.ingest_jobs as j
                where j.version_id = v_version.id and j.stage = 'chunk' and j.state = 'done'
            ) then 'chunk'
        when exists (
            select 1 from public.ingest_jobs as j
            where j.version_id = v_version.id and j.stage = 'extract' and j.state = 'done'
        ) then 'extract'
        else 'detect'
    end;
    perform private.drop_reread(v_version.id); -- of an attempt that failed
    perform private.begin_reread(v_version.id, v_stage);
    -- what failed or was cancelled later than this stage comes again after it
    delete from public.ingest_jobs as j
    where j.version_id = v_version.id
        and j.stage <> v_stage
        and j.state <> 'done'
        and array_position(private.stages(), j.stage) > array_position(private.stages(), v_stage);
    perform private.enqueue(v_version.id, v_stage);
    perform private.set_version_status(v_version.id, 'processing');
    perform private.write_audit(
        'reprocess_file', file_id, null, null,
        jsonb_build_object(
            'version_id', v_version.id, 'options', v_reading,
            'has_password', coalesce(options -> 'password', 'null') <> 'null'
        )
    );
    return jsonb_build_object(
        'file_id', file_id, 'version_id', v_version.id, 'from_stage', v_stage, 'options', v_reading
    );
end;
$$;
comment on function private.reprocess_file(uuid, jsonb) is 'Behind public.reprocess_file.';
grant execute on function private.reprocess_file(uuid, jsonb) to anon, authenticated;

create function public.reprocess_file(file_id uuid, options jsonb default '{}') returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.reprocess_file(file_id, options); $$;
comment on function public.reprocess_file(uuid, jsonb) is
'Read the newest version of a file again, with other options: {file_id, version_id, from_stage, options}.

options: ocr_languages (a list of codes such as deu or chi_sim), chunk_size and chunk_overlap (characters), password (of
a locked PDF or Office document; it is kept for later readings, and shown to nobody). Those that are not given stay as
they were, null takes one back. The old text is found until the new one is complete, and after a failure. Needs level
edit. Raises INVALID_ARGUMENT {field, expected}, CONFLICT_STATE while the file is being read, NOT_FOUND, FORBIDDEN.';
grant execute on function public.reprocess_file(uuid, jsonb) to anon, authenticated;
