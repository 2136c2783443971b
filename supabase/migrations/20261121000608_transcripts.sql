-- Transcripts: recordings and films are listened to, a stretch of a few minutes after the other. Each is stored as soon
-- as it was heard, so a worker that is lost costs one. In the end what was said is the text of the file.

create table public.transcripts (
    version_id uuid primary key references public.file_versions on delete cascade,
    file_id uuid not null references public.nodes on delete cascade,
    engine text not null,
    revision text not null,
    is_low_quality boolean not null,
    language text,
    duration_ms integer check (duration_ms >= 0),
    reached_ms integer not null default 0 check (reached_ms >= 0),
    created_at timestamptz not null default now()
);
comment on table public.transcripts is 'Who listened to a recording, and how far; what was said is in its segments.';
comment on column public.transcripts.engine is 'pocketsphinx, or the name of a Whisper model.';
comment on column public.transcripts.revision is 'Release of the engine and way of using it, or commit of its weights.';
comment on column public.transcripts.is_low_quality is
'Whether the words help to find a place, and are not fit to be quoted.';
comment on column public.transcripts.language is 'What most is spoken in, ISO 639-1; null when unclear or silent.';
comment on column public.transcripts.duration_ms is 'What the file says of its length; null when it does not.';
comment on column public.transcripts.reached_ms is 'Up to where it was heard; the length of the sound when complete.';
create index transcripts_file_id_idx on public.transcripts (file_id);

create table public.transcript_segments (
    version_id uuid not null references public.transcripts on delete cascade,
    file_id uuid not null references public.nodes on delete cascade,
    start_ms integer not null check (start_ms >= 0),
    end_ms integer not null,
    text text not null check (text <> ''),
    language text,
    confidence real check (confidence between 0 and 1),
    primary key (version_id, start_ms),
    check (end_ms > start_ms)
);
comment on table public.transcript_segments is 'What was said in a recording, and when.';
comment on column public.transcript_segments.start_ms is 'From the beginning of the recording.';
comment on column public.transcript_segments.language is 'ISO 639-1; null where the engine does not tell.';
comment on column public.transcript_segments.confidence is '0 to 1; null where the engine does not tell.';
create index transcript_segments_file_id_idx on public.transcript_segments (file_id);

alter table public.transcripts enable row level security;
alter table public.transcript_segments enable row level security;

create policy readers_can_select on public.transcripts
for select to anon, authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = file_id
));

create policy readers_can_select on public.transcript_segments
for select to anon, authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = file_id
));

grant select on public.transcripts, public.transcript_segments to anon, authenticated, service_role;

-- Drafts: what is heard stays out of sight until all of it was, and when a file is read again, until that is done ---

create table private.draft_transcripts (
    like public.transcripts including defaults including constraints,
    primary key (version_id),
    foreign key (version_id) references public.file_versions on delete cascade,
    foreign key (file_id) references public.nodes on delete cascade
);
comment on table private.draft_transcripts is 'Transcripts in work.';
create index draft_transcripts_file_id_idx on private.draft_transcripts (file_id);
alter table private.draft_transcripts enable row level security;

create table private.draft_segments (
    like public.transcript_segments including defaults including constraints,
    primary key (version_id, start_ms),
    foreign key (version_id) references private.draft_transcripts on delete cascade,
    foreign key (file_id) references public.nodes on delete cascade
);
comment on table private.draft_segments is 'What was heard so far, of transcripts in work.';
create index draft_segments_file_id_idx on private.draft_segments (file_id);
alter table private.draft_segments enable row level security;

create function private.publish_transcript(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if not exists (select 1 from private.draft_transcripts as t where t.version_id = publish_transcript.version_id) then
        return; -- only what comes after it was done again
    end if;
    delete from public.transcripts as t where t.version_id = publish_transcript.version_id;
    insert into public.transcripts
    select t.* from private.draft_transcripts as t where t.version_id = publish_transcript.version_id;
    insert into public.transcript_segments
    select s.* from private.draft_segments as s where s.version_id = publish_transcript.version_id;
    delete from private.draft_transcripts as t where t.version_id = publish_transcript.version_id;
end;
$$;
comment on function private.publish_transcript(uuid) is
'Puts the draft of a transcript, if there is one, in the place of the transcript.';

-- The stage ------------------------------------------------------------------------------------

create function private.begin_transcript(
    job_id uuid, lease_token uuid, engine text, revision text, is_low_quality boolean
) returns integer
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    delete from private.draft_transcripts as t -- two engines do not share a transcript
    where t.version_id = v_job.version_id
        and (t.engine, t.revision) is distinct from (begin_transcript.engine, begin_transcript.revision);
    insert into private.draft_transcripts (version_id, file_id, engine, revision, is_low_quality)
    values (
        v_job.version_id, v_job.file_id, begin_transcript.engine, begin_transcript.revision,
        begin_transcript.is_low_quality
    )
    on conflict on constraint draft_transcripts_pkey do nothing;
    return (select t.reached_ms from private.draft_transcripts as t where t.version_id = v_job.version_id);
end;
$$;
comment on function private.begin_transcript(uuid, uuid, text, text, boolean) is
'Begins to listen with an engine, or goes on where it was interrupted: returns reached_ms.';

create function private.store_segments(
    job_id uuid, lease_token uuid, segments jsonb, reached_ms integer, duration_ms integer
) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    insert into private.draft_segments (version_id, file_id, start_ms, end_ms, text, language, confidence)
    select v_job.version_id, v_job.file_id, r.start_ms, r.end_ms, r.text, r.language, r.confidence
    from jsonb_to_recordset(store_segments.segments) as r (
        start_ms integer, end_ms integer, text text, language text, confidence real
    )
    on conflict on constraint draft_segments_pkey do nothing;
    update private.draft_transcripts as t
    set
        reached_ms = greatest(t.reached_ms, store_segments.reached_ms),
        duration_ms = coalesce(store_segments.duration_ms, t.duration_ms)
    where t.version_id = v_job.version_id;
    update public.ingest_jobs as j
    set progress = greatest(j.progress, least(t.reached_ms::real / nullif(t.duration_ms, 0), 1))
    from private.draft_transcripts as t
    where j.id = job_id and t.version_id = v_job.version_id;
end;
$$;
comment on function private.store_segments(uuid, uuid, jsonb, integer, integer) is
'Stores what was heard up to reached_ms: [{start_ms, end_ms, text, language, confidence}].';

create function private.transcript_page(version_id uuid) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'page', 1,
        'text', coalesce(string_agg(s.text, e'\n' order by s.start_ms), ''),
        'source', 'speech',
        'layout', jsonb_build_object(
            'lines', '[]'::jsonb, 'headings', '[]'::jsonb,
            'times', coalesce(
                jsonb_agg(
                    jsonb_build_array(s.before, s.before + char_length(s.text), s.start_ms, s.end_ms)
                    order by s.start_ms
                ),
                '[]'
            )
        )
    )
    from (
        select
            t.start_ms, t.end_ms, t.text,
            coalesce(sum(char_length(t.text) + 1) over (
                order by t.start_ms rows between unbounded preceding and 1 preceding
            ), 0) as before
        from private.draft_segments as t
        where t.version_id = transcript_page.version_id
    ) as s;
$$;
comment on function private.transcript_page(uuid) is
'A draft as the one page of its file, as put_pages takes it: a line a segment; and of each, when it was said.';

create function private.finish_transcribe(job_id uuid, lease_token uuid) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
    v_sureness real;
    v_language text;
begin
    select sum(s.confidence * (s.end_ms - s.start_ms)) / sum(s.end_ms - s.start_ms) into v_sureness
    from private.draft_segments as s
    inner join private.draft_transcripts as t on t.version_id = s.version_id and t.is_low_quality
    where s.version_id = v_job.version_id;
    if v_sureness < (private.setting('transcribe.least_confidence'))::real then
        delete from private.draft_segments as s where s.version_id = v_job.version_id;
    end if;

    select s.language into v_language
    from private.draft_segments as s
    where s.version_id = v_job.version_id and s.language is not null
    group by s.language
    order by sum(s.end_ms - s.start_ms) desc, s.language
    limit 1;
    update private.draft_transcripts as t set language = v_language where t.version_id = v_job.version_id;
    perform private.put_pages(
        v_job.version_id, jsonb_build_array(private.transcript_page(v_job.version_id)), true
    );
    perform private.describe_reading(v_job.version_id, v_language, false, 1, null);
    if not private.is_reread(v_job.version_id) then
        perform private.publish_transcript(v_job.version_id);
    end if;
    perform private.finish_job(job_id);
    perform private.enqueue(v_job.version_id, 'chunk');
end;
$$;
comment on function private.finish_transcribe(uuid, uuid) is
'Ends the transcribe stage: what was said becomes the text of the file, and chunk is queued. Of an engine of low
quality, what it is not sure of on the whole, as of a language that it does not know, is dropped.';

create function private.copy_transcript(source_version_id uuid, target_version_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into public.transcripts (
        version_id, file_id, engine, revision, is_low_quality, language, duration_ms, reached_ms
    )
    select v.id, v.file_id, t.engine, t.revision, t.is_low_quality, t.language, t.duration_ms, t.reached_ms
    from public.transcripts as t cross join public.file_versions as v
    where t.version_id = source_version_id and v.id = target_version_id;

    insert into public.transcript_segments (version_id, file_id, start_ms, end_ms, text, language, confidence)
    select v.id, v.file_id, s.start_ms, s.end_ms, s.text, s.language, s.confidence
    from public.transcript_segments as s cross join public.file_versions as v
    where s.version_id = source_version_id and v.id = target_version_id;
$$;
comment on function private.copy_transcript(uuid, uuid) is
'Gives a version the transcript of another one with the same bytes.';

grant execute on function
private.begin_transcript(uuid, uuid, text, text, boolean),
private.store_segments(uuid, uuid, jsonb, integer, integer),
private.finish_transcribe(uuid, uuid)
to narwhal_worker;
