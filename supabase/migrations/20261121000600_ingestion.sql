-- Ingestion: pages and chunks, and the queue that produces them. Workers claim a job under a lease; every write
-- carries the lease token, so a worker that lost its job, or whose file was deleted, cannot write any more.

create table public.pages (
    id uuid primary key default gen_random_uuid(),
    file_id uuid not null references public.nodes on delete cascade,
    version_id uuid not null references public.file_versions on delete cascade,
    page integer not null check (page > 0),
    text text not null,
    width real,
    height real,
    source text not null default 'text' check (source in ('text', 'ocr', 'mixed', 'speech')),
    needs_ocr boolean not null default false,
    layout jsonb not null default '{}',
    unique (version_id, page)
);
comment on table public.pages is 'Text of a version by page, slide or sheet; one row for formats without pages.';
comment on column public.pages.page is 'From 1.';
comment on column public.pages.width is 'In points; null where the format has no pages.';
comment on column public.pages.needs_ocr is 'Shows something that its text does not tell; false again after OCR.';
comment on column public.pages.layout is
'{lines: [[start, end, x0, y0, x1, y1], …], headings: [[start, level, text], …]}: offsets in characters of text, boxes
0..1 from the top left. Of speech and of subtitles also times: [[start, end, start_ms, end_ms], …].';
create index pages_file_id_idx on public.pages (file_id);

create table public.chunks (
    id uuid primary key default gen_random_uuid(),
    file_id uuid not null references public.nodes on delete cascade,
    version_id uuid not null references public.file_versions on delete cascade,
    idx integer not null check (idx >= 0),
    page integer,
    content text not null,
    char_start integer not null,
    char_end integer not null,
    bboxes jsonb not null default '[]',
    heading text,
    context text,
    language text,
    time_range_ms int4range check (not isempty(time_range_ms)),
    boost real not null default 1,
    text_hash bytea not null,
    unique (version_id, idx),
    check (char_end > char_start)
);
comment on table public.chunks is 'The passages that search finds; they belong to one version.';
comment on column public.chunks.idx is 'Order in the version, from 0.';
comment on column public.chunks.page is 'Page, slide or sheet from 1; null where the format has none.';
comment on column public.chunks.char_start is
'Characters before it on its page: content = substr(pages.text, char_start + 1, char_end - char_start).';
comment on column public.chunks.char_end is 'char_start + length of content.';
comment on column public.chunks.bboxes is 'Where it stands: [[x0, y0, x1, y1], …], 0..1 of the page from the top left.';
comment on column public.chunks.time_range_ms is 'When it was said, of recordings and films; null for what is read.';
comment on column public.chunks.heading is 'Headings above it, outermost first, joined by " › ".';
comment on column public.chunks.context is
'What it is about: the title and the headings above it, joined by " › ". Search reads it with the content, and its words
count in every chunk.';
comment on column public.chunks.text_hash is 'sha256 of embedded_text: unchanged text keeps its vector.';
create index chunks_file_id_idx on public.chunks (file_id);
create index chunks_text_hash_idx on public.chunks (text_hash);

create function private.embedded_text(content text, context text) returns text
language sql immutable parallel safe
return case
    when context is null or strpos(content, context) > 0 then content
    else context || e'\n\n' || content
end;
comment on function private.embedded_text(text, text) is
'What is embedded of a chunk: its content, after the context where the content does not have it. What is shown, quoted,
and compared with phrases is the content alone.';

create table public.embedding_spaces (
    id smallint generated always as identity primary key,
    name text not null unique check (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    model text not null,
    revision text not null,
    dimension integer not null check (dimension between 1 and 4000),
    kind text not null check (kind in ('text', 'page', 'image')),
    state text not null check (state in ('building', 'shadow', 'active', 'retiring')),
    max_tokens integer not null check (max_tokens > 0),
    languages text[] check (languages <> '{}' and array_to_string(languages, ' ', '') ~ '^[a-z]{2,3}( [a-z]{2,3})*$'),
    created_at timestamptz not null default now(),
    retired_at timestamptz,
    -- checked at the end of a statement, unlike a unique index: a flip swaps two spaces in one
    constraint embedding_spaces_active_key exclude using btree (kind with =) where (state = 'active')
    deferrable initially immediate
);
comment on table public.embedding_spaces is
'Models whose vectors are kept side by side; vectors of different spaces are never compared.';
comment on column public.embedding_spaces.revision is
'Which weights: the first 12 hexadecimal digits of their sha256. Encoders with others are refused.';
comment on column public.embedding_spaces.max_tokens is
'Longest text that the model reads whole; while it is active no chunk is made longer.';
comment on column public.embedding_spaces.languages is
'What the model was made for (ISO 639); null: whatever there is. Passages in other languages are ranked by their words
more than by its vectors.';
comment on column public.embedding_spaces.state is
'building: written, not yet complete; shadow: complete once, and still written; active: written, and what is searched
unless a search names another; retiring: neither, its vectors go.';
comment on column public.embedding_spaces.retired_at is 'When it was retired; null before.';

create function private.stages() returns text[]
language sql immutable
security invoker
set search_path = ''
as $$
    select array[
        'scan', 'detect', 'extract', 'ocr', 'transcribe', 'render', 'unpack', 'chunk', 'embed_text', 'embed_pages',
        'caption', 'insights'
    ];
$$;
comment on function private.stages() is 'The stages of ingestion, in their order.';

create table public.ingest_jobs (
    id uuid primary key default gen_random_uuid(),
    file_id uuid not null references public.nodes on delete cascade,
    version_id uuid not null references public.file_versions on delete cascade,
    stage text not null check (stage = any(private.stages())),
    space_id smallint references public.embedding_spaces on delete cascade,
    owner_id uuid not null,
    state text not null default 'queued' check (
        state in ('queued', 'running', 'done', 'failed', 'dead', 'cancelled')
    ),
    priority smallint not null default 0,
    progress real not null default 0 check (progress between 0 and 1),
    pages_done integer not null default 0,
    pages_total integer,
    attempts integer not null default 0,
    lease_losses integer not null default 0,
    error_code text,
    error_message text,
    run_after timestamptz not null default now(),
    created_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    worker text,
    lease_token uuid,
    lease_expires_at timestamptz,
    unique nulls not distinct (version_id, stage, space_id)
);
comment on table public.ingest_jobs is 'One row per version, stage and space; written only by the queue''s functions.';
comment on column public.ingest_jobs.priority is
'Lower first: 0 what a file needs to be ready, 1 the same of an owner who sends many files, 2 what it does not need
(pictures to look at, insights, spaces that are not active), 3 back-fills.';
comment on column public.ingest_jobs.owner_id is
'Whose turn it takes: the owner of the file when it was queued. No reference: a file may change hands.';
comment on column public.ingest_jobs.progress is '0 to 1 of this stage.';
comment on column public.ingest_jobs.attempts is 'Errors that the work itself raised; three make the job dead.';
comment on column public.ingest_jobs.lease_losses is
'Workers lost while they had it; not the job''s fault, ten make it dead.';
comment on column public.ingest_jobs.state is
'failed: the file''s own fault, retrying cannot help; dead: gave up after errors; both can be retried by hand.';
create index ingest_jobs_file_id_idx on public.ingest_jobs (file_id);
create index ingest_jobs_space_id_idx on public.ingest_jobs (space_id);
-- next_turn and take_job: owners in turn, and each one's jobs
create index ingest_jobs_queued_idx on public.ingest_jobs (
    priority, stage, coalesce(space_id, 0), owner_id, run_after, created_at
) where state = 'queued';
create index ingest_jobs_running_idx on public.ingest_jobs (lease_expires_at) where state = 'running';
create index ingest_jobs_ended_idx on public.ingest_jobs (state) where state in ('failed', 'dead');

alter table public.pages enable row level security;
alter table public.chunks enable row level security;
alter table public.ingest_jobs enable row level security;
alter table public.embedding_spaces enable row level security;

create policy readers_can_select on public.pages
for select to anon, authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = file_id
));

create policy readers_can_select on public.chunks
for select to anon, authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = file_id
));

create policy readers_can_select on public.ingest_jobs
for select to authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = file_id
));

create policy users_can_select on public.embedding_spaces
for select to authenticated
using ((select private.is_active()));

grant select on public.pages, public.chunks to anon, authenticated, service_role;
grant select on public.embedding_spaces to authenticated, service_role;
grant select (
    id, file_id, version_id, stage, space_id, state, progress, pages_done, pages_total, attempts, lease_losses,
    error_code, error_message, run_after, created_at, started_at, finished_at
) on public.ingest_jobs to authenticated; -- not the lease token
grant select on public.ingest_jobs to service_role;

-- Spaces come and go while files are read -------------------------------------------------------

create function private.hold_spaces() returns void
language sql volatile
security invoker
set search_path = ''
as $$ select pg_advisory_xact_lock_shared(hashtextextended('narwhal.spaces', 0)); $$;
comment on function private.hold_spaces() is
'Until the transaction ends no space is added, activated or retired: every version has a job in each space, and is ready
only with the vectors of the active one. Waits only while such a change is under way, and that waits for nobody.';

create function private.is_required(stage text, space_id smallint) returns boolean
language sql stable
security invoker
set search_path = ''
as $$
    select case
        when is_required.stage in ('render', 'unpack', 'caption', 'insights') then false
        when is_required.space_id is null then true
        else exists (
            select 1 from public.embedding_spaces as s where s.id = is_required.space_id and s.state = 'active'
        )
    end;
$$;
comment on function private.is_required(text, smallint) is
'Whether a file needs a job to be ready: not those that make pictures, captions and insights or take files out of it,
and of those with a space only an active one''s. A file stays ready when a job that it does not need fails.';

-- The queue ------------------------------------------------------------------------------------

create function private.enqueue(version_id uuid, stage text, space_id smallint default null) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    insert into public.ingest_jobs (file_id, version_id, stage, space_id, priority)
    select
        v.file_id, v.id, enqueue.stage, enqueue.space_id,
        private.job_priority(v.id, enqueue.stage, enqueue.space_id)
    from public.file_versions as v
    where v.id = enqueue.version_id
    on conflict on constraint ingest_jobs_version_id_stage_space_id_key do update
    set
        state = 'queued', owner_id = excluded.owner_id, priority = excluded.priority, progress = 0, pages_done = 0, attempts = 0, lease_losses = 0,
        error_code = null, error_message = null, run_after = now(),
        started_at = null, finished_at = null, worker = null, lease_token = null, lease_expires_at = null;
    perform pg_notify('narwhal_jobs', ''); -- a doorbell; workers also poll
end;
$$;
comment on function private.enqueue(uuid, text, smallint) is 'Queues a stage of a version, anew if it ran before.';

create function private.set_version_status(
    version_id uuid, status text, error_code text default null, error_message text default null
) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    -- what was read before serves on when reading it again fails
    if set_version_status.status in ('failed', 'skipped') and private.is_reread(version_id) then
        status := 'ready';
    end if;
    update public.file_versions as v
    set
        status = set_version_status.status,
        error_code = set_version_status.error_code,
        error_message = left(set_version_status.error_message, 1000)
    where v.id = set_version_status.version_id;

    -- the file shows its newest version; a failed one leaves the head before it in service
    update public.nodes as n
    set status = case
        when n.head_version_id is not null and n.head_version_id <> v.id
            and set_version_status.status in ('failed', 'skipped', 'rejected') then 'ready'
        else set_version_status.status
    end
    from public.file_versions as v
    where v.id = set_version_status.version_id
        and n.id = v.file_id
        and not exists (
            select 1 from public.file_versions as later where later.file_id = v.file_id and later.no > v.no
        );
end;
$$;
comment on function private.set_version_status(uuid, text, text, text) is
'Records where a version is, on it and, when it is the newest, on its file.';

create function private.reclaim_jobs() returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_job public.ingest_jobs;
begin
    for v_job in
        select j.* from public.ingest_jobs as j
        where j.state = 'running' and j.lease_expires_at < now()
        limit 100
        for update skip locked
    loop
        -- here the job is locked before its node: never wait for the node, or a trash could deadlock with it
        perform from public.nodes as n where n.id = v_job.file_id for no key update skip locked;
        continue when not found;
        if v_job.lease_losses + 1 >= (private.setting('jobs.max_lease_losses'))::integer then
            update public.ingest_jobs as j
            set
                state = 'dead', lease_losses = j.lease_losses + 1, lease_token = null, finished_at = now(),
                error_code = 'worker_lost', error_message = 'Its workers ended again and again.'
            where j.id = v_job.id;
            if private.is_required(v_job.stage, v_job.space_id) then
                perform private.set_version_status(
                    v_job.version_id, 'failed', 'worker_lost', 'Its workers ended again and again.'
                );
            end if;
        else
            update public.ingest_jobs as j
            set state = 'queued', lease_losses = j.lease_losses + 1, lease_token = null, run_after = now()
            where j.id = v_job.id;
        end if;
    end loop;
end;
$$;
comment on function private.reclaim_jobs() is 'Queues the jobs of workers that stopped renewing their lease.';

create function private.worker_spaces() returns setof jsonb
language sql stable
security definer -- workers have no rights on tables
set search_path = ''
as $$ select to_jsonb(s) from public.embedding_spaces as s where s.state <> 'retiring' order by s.id; $$;
comment on function private.worker_spaces() is
'The spaces that files are embedded in: a worker finds out which of their models it has, and claims no other jobs.';

create function private.own_job(job_id uuid, lease_token uuid) returns public.ingest_jobs
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_job public.ingest_jobs;
begin
    perform private.hold_spaces();
    -- node before job, the order of trash and purge
    perform from public.nodes as n
    where n.id = (select j.file_id from public.ingest_jobs as j where j.id = job_id)
    for no key update;
    select j.* into v_job
    from public.ingest_jobs as j
    where j.id = job_id and j.lease_token = own_job.lease_token and j.state = 'running'
    for update;
    if v_job.id is null or exists (
        select 1 from public.embedding_spaces as s where s.id = v_job.space_id and s.state = 'retiring'
    ) then
        perform private.raise_error(
            'CONFLICT_STATE', 'This job is not yours any more.', jsonb_build_object('job_id', job_id, 'lease', 'lost')
        );
    end if;
    return v_job;
end;
$$;
comment on function private.own_job(uuid, uuid) is
'The fence: the running job, locked, if this lease token still holds it and its space is not retired. Raises
CONFLICT_STATE otherwise.';

create function private.heartbeat_job(
    job_id uuid, lease_token uuid, progress real default null, pages_done integer default null,
    pages_total integer default null
) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
begin
    -- one row and no lock on the node: a long transaction elsewhere must not cost the lease
    update public.ingest_jobs as j
    set
        lease_expires_at = now() + make_interval(secs => (private.setting('jobs.lease_s'))::double precision),
        progress = greatest(j.progress, least(heartbeat_job.progress, 1)),
        pages_done = greatest(j.pages_done, heartbeat_job.pages_done),
        pages_total = coalesce(heartbeat_job.pages_total, j.pages_total)
    where j.id = job_id and j.lease_token = heartbeat_job.lease_token and j.state = 'running';
    if not found then
        perform private.raise_error(
            'CONFLICT_STATE', 'This job is not yours any more.', jsonb_build_object('job_id', job_id, 'lease', 'lost')
        );
    end if;
end;
$$;
comment on function private.heartbeat_job(uuid, uuid, real, integer, integer) is
'Renews a lease and reports progress, which only grows. Raises CONFLICT_STATE when the lease is lost.';

create function private.release_job(job_id uuid, lease_token uuid) returns void
language sql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
    update public.ingest_jobs as j
    set state = 'queued', lease_token = null, lease_expires_at = null, run_after = now()
    where j.id = job_id and j.lease_token = release_job.lease_token and j.state = 'running';
$$;
comment on function private.release_job(uuid, uuid) is
'A worker that is asked to stop hands its job back; nothing is counted against the job.';

create function private.finish_job(job_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    update public.ingest_jobs as j
    set
        state = 'done', progress = 1, pages_done = coalesce(j.pages_total, j.pages_done), finished_at = now(),
        lease_token = null, lease_expires_at = null, error_code = null, error_message = null
    where j.id = job_id;
    select private.note_success(private.services_of(j.stage, j.space_id))
    from public.ingest_jobs as j
    where j.id = job_id;
$$;
comment on function private.finish_job(uuid) is 'Marks a job done, in the transaction that stores its output.';

create function private.fail_job(
    job_id uuid, lease_token uuid, error_code text, error_message text, is_terminal boolean, service text default null
) returns text
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
    v_state text := case
        when is_terminal then 'failed'
        when v_job.attempts + 1 >= (private.setting('jobs.max_attempts'))::integer then 'dead'
        else 'queued'
    end;
begin
    update public.ingest_jobs as j
    set
        state = v_state,
        attempts = j.attempts + case when is_terminal then 0 else 1 end,
        error_code = fail_job.error_code,
        error_message = left(fail_job.error_message, 1000),
        run_after = now() + make_interval(
            secs => (private.setting('jobs.backoff_s'))::double precision * 2 ^ j.attempts
        ),
        finished_at = case when v_state <> 'queued' then now() end,
        lease_token = null, lease_expires_at = null
    where j.id = job_id;
    if v_state <> 'queued' then
        if error_code in ('magic_mismatch', 'infected') then
            perform private.reject_version(v_job.version_id, error_code, error_message);
        elsif private.is_required(v_job.stage, v_job.space_id) then
            perform private.set_version_status(v_job.version_id, 'failed', error_code, error_message);
        end if;
    end if;
    if service is not null then
        perform private.note_failure(service, error_message);
    end if;
    return v_state;
end;
$$;
comment on function private.fail_job(uuid, uuid, text, text, boolean, text) is
'Records an error. Terminal (the file''s own fault): failed at once, no attempt counted. Otherwise queued again after
base * 2^attempts seconds, dead after the last attempt. service: which outside service did not answer, see
service_breakers. Returns the new state.';

create function private.reject_version(version_id uuid, error_code text, error_message text) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_blob_id uuid;
begin
    select v.blob_id into v_blob_id from public.file_versions as v where v.id = version_id;
    -- nobody may take these bytes for another version meanwhile
    perform from public.owners as o
    where o.id = (select b.owner_id from private.blobs as b where b.id = v_blob_id)
    for no key update;
    perform private.set_version_status(version_id, 'rejected', error_code, error_message);
    update public.file_versions as v set blob_id = null where v.id = version_id; -- it keeps its row, without bytes
    if not exists (select 1 from private.blob_uses as u where u.blob_id = v_blob_id) then
        delete from private.blobs as b where b.id = v_blob_id;
    else
        update private.blobs as b
        set released_at = now()
        where b.id = v_blob_id
            and b.released_at is null
            and not exists (
                select 1
                from private.blob_uses as u inner join public.nodes as n on n.id = u.file_id
                where u.blob_id = b.id and n.purged_at is null
            );
    end if;
end;
$$;
comment on function private.reject_version(uuid, text, text) is
'Marks a version rejected and takes its bytes away: with the last version that has them they are purged, and their quota
returns.';

-- What the stages store ------------------------------------------------------------------------

create function private.finish_detect(
    job_id uuid, lease_token uuid, sha256 text, mime text, format text, skip_reason text default null
) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
    v_promised text;
begin
    select u.sha256 into v_promised from public.uploads as u where u.version_id = v_job.version_id;
    if v_promised is not null and v_promised <> finish_detect.sha256 then
        perform private.fail_job(
            job_id, lease_token, 'corrupt', 'The stored bytes do not have the sha256 that the upload promised.', true
        );
        return;
    end if;
    update private.blobs as b
    set sha256 = finish_detect.sha256
    from public.file_versions as v
    where v.id = v_job.version_id and b.id = v.blob_id;
    update public.file_versions as v
    set sha256 = finish_detect.sha256, mime = coalesce(finish_detect.mime, v.mime), format = finish_detect.format
    where v.id = v_job.version_id;
    update public.nodes as n
    set mime = coalesce(finish_detect.mime, n.mime)
    where n.id = v_job.file_id;
    perform private.finish_job(job_id);
    if finish_detect.format is null then
        perform private.serve_unread(v_job.version_id);
        perform private.set_version_status(v_job.version_id, 'skipped', 'unsupported_media', skip_reason);
    else
        perform private.enqueue(v_job.version_id, 'extract');
    end if;
end;
$$;
comment on function private.finish_detect(uuid, uuid, text, text, text, text) is
'Stores what the bytes are. No format: the version is kept and skipped. Otherwise queues extract.';

create function private.finish_extract(
    job_id uuid, lease_token uuid, language text, is_paged boolean, pages jsonb, truncated_by text default null
) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
    v_count integer;
    v_needs_ocr boolean;
begin
    if pages is not null then
        perform private.put_pages(v_job.version_id, pages, true);
    end if;
    select count(*), coalesce(bool_or(p.needs_ocr), false) into v_count, v_needs_ocr
    from private.pages_in_work(v_job.version_id) as p;
    perform private.describe_reading(v_job.version_id, language, is_paged, v_count, truncated_by);
    update public.ingest_jobs as j set pages_total = v_count where j.id = job_id;
    perform private.finish_job(job_id);
    if v_needs_ocr then
        perform private.enqueue(v_job.version_id, 'ocr');
    elsif exists (
        select 1 from public.file_versions as v where v.id = v_job.version_id and v.format in ('audio', 'video')
    ) then
        delete from private.draft_transcripts as t where t.version_id = v_job.version_id; -- of an earlier run
        perform private.enqueue(v_job.version_id, 'transcribe');
    else
        delete from public.ingest_jobs as j where j.version_id = v_job.version_id and j.stage = 'ocr'; -- an earlier run
        perform private.enqueue(v_job.version_id, 'chunk');
    end if;
    perform private.enqueue_render(v_job.version_id);
    perform private.enqueue_unpack(v_job.version_id);
end;
$$;
comment on function private.finish_extract(uuid, uuid, text, boolean, jsonb, text) is
'Stores the pages [{page, text, width, height, source, needs_ocr, layout}], null when store_pages has, and queues what
comes next: ocr where a page needs it, transcribe for what is heard, else chunk; and beside it render where there is
something to draw, unpack where there is something to take out. truncated_by: the limit
that ended reading.';

create function private.job_pages(
    job_id uuid, lease_token uuid, after_page integer default 0, max_characters integer default null
) returns jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    return (
        select jsonb_build_object(
            'is_paged', case when r.has_pages then r.is_paged else v.is_paged end,
            'language', case when r.has_pages then r.language else v.language end,
            'last_page', (select max(p.page) from private.pages_in_work(v.id) as p),
            'pages', (
                select coalesce(jsonb_agg(to_jsonb(p) - '{id,file_id,version_id,before}'::text[] order by p.page), '[]')
                from (
                    select w.*, sum(length(w.text)) over (order by w.page) - length(w.text) as before
                    from private.pages_in_work(v.id) as w
                    where w.page > job_pages.after_page
                ) as p
                where job_pages.max_characters is null or p.before < job_pages.max_characters
            ),
            'spaces', (
                select coalesce(jsonb_agg(to_jsonb(s)), '[]')
                from public.embedding_spaces as s
                where s.kind = 'text' and s.state = 'active'
            )
        )
        from public.file_versions as v
        left join private.rereads as r on r.version_id = v.id
        where v.id = v_job.version_id
    );
end;
$$;
comment on function private.job_pages(uuid, uuid, integer, integer) is
'What the chunk stage needs: {is_paged, language, last_page, pages in order, spaces that chunks must fit}. Of a long
file some pages at a time: those after a page, until max_characters are reached. A space on trial does not change how
files are cut; texts that are too long for it are cut off there.';

create function private.finish_chunk(job_id uuid, lease_token uuid, chunks jsonb) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
    v_count integer;
    v_old_texts bytea[];
begin
    v_old_texts := array(select private.text_hashes(array[v_job.version_id]));
    if chunks is not null then
        delete from private.draft_chunks as c where c.version_id = v_job.version_id; -- of an earlier run
    end if;
    if private.is_reread(v_job.version_id) then
        insert into private.draft_chunks select c.* from private.new_chunks(v_job.version_id, chunks) as c;
        select count(*) into v_count from private.draft_chunks as c where c.version_id = v_job.version_id;
    else
        perform private.unserve_version(v_job.version_id); -- chunks of an earlier run may be in service
        delete from public.chunks as c where c.version_id = v_job.version_id;
        insert into public.chunks
        select c.* from private.new_chunks(v_job.version_id, chunks) as c
        union all
        select c.* from private.draft_chunks as c where c.version_id = v_job.version_id;
        get diagnostics v_count = row_count;
        delete from private.draft_chunks as c where c.version_id = v_job.version_id;
    end if;
    perform private.finish_job(job_id);
    if v_count > 0 then
        perform private.enqueue(v_job.version_id, 'embed_text', s.id)
        from public.embedding_spaces as s
        where s.kind = 'text' and s.state <> 'retiring';
    else
        -- of an earlier run, when there was text
        delete from public.ingest_jobs as j where j.version_id = v_job.version_id and j.stage = 'embed_text';
    end if;
    perform private.enqueue_pictures(v_job.version_id);
    perform private.enqueue_insights(v_job.version_id);
    perform private.forget_texts(array[n.owner_id], v_old_texts) from public.nodes as n where n.id = v_job.file_id;
    perform private.advance_version(v_job.version_id);
end;
$$;
comment on function private.finish_chunk(uuid, uuid, jsonb) is
'Stores the chunks [{idx, page, content, char_start, char_end, bboxes, heading, context, language, time_range_ms}], all
at once, null when store_chunks has them; queues one embed_text per text space, and puts a first version in service for
keyword search.';

grant execute on function
private.worker_spaces(),
private.heartbeat_job(uuid, uuid, real, integer, integer),
private.fail_job(uuid, uuid, text, text, boolean, text),
private.finish_detect(uuid, uuid, text, text, text, text),
private.finish_extract(uuid, uuid, text, boolean, jsonb, text),
private.job_pages(uuid, uuid, integer, integer),
private.release_job(uuid, uuid),
private.finish_chunk(uuid, uuid, jsonb)
to narwhal_worker;
