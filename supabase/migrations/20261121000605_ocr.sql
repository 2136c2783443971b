-- OCR: pages whose text layer is missing or noise are read as pictures, one after the other. Each is stored as soon as
-- it is read, so a worker that is lost costs one page.

create function private.job_pictures(job_id uuid, lease_token uuid) returns jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    return (
        select jsonb_build_object(
            'left', coalesce(jsonb_agg(p.page order by p.page) filter (where p.needs_ocr), '[]'),
            'total', count(*) filter (where p.needs_ocr or p.source <> 'text')
        )
        from private.pages_in_work(v_job.version_id) as p
    );
end;
$$;
comment on function private.job_pictures(uuid, uuid) is
'What the ocr stage has to do: {left: numbers of pages, total: of how many}.';

create function private.store_page(job_id uuid, lease_token uuid, page jsonb) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
    v_left integer;
    v_total integer;
begin
    if private.is_reread(v_job.version_id) then
        update private.draft_pages as p
        set
            text = r.text, width = coalesce(r.width, p.width), height = coalesce(r.height, p.height),
            source = r.source, layout = r.layout, needs_ocr = false
        from jsonb_to_record(store_page.page) as r (
            page integer, text text, width real, height real, source text, layout jsonb
        )
        where p.version_id = v_job.version_id and p.page = r.page;
    else
        update public.pages as p
        set
            text = r.text, width = coalesce(r.width, p.width), height = coalesce(r.height, p.height),
            source = r.source, layout = r.layout, needs_ocr = false
        from jsonb_to_record(store_page.page) as r (
            page integer, text text, width real, height real, source text, layout jsonb
        )
        where p.version_id = v_job.version_id and p.page = r.page;
    end if;
    select count(*) filter (where p.needs_ocr), count(*) filter (where p.needs_ocr or p.source <> 'text')
    into v_left, v_total
    from private.pages_in_work(v_job.version_id) as p;
    update public.ingest_jobs as j
    set pages_total = v_total, pages_done = v_total - v_left, progress = 1 - v_left::real / greatest(v_total, 1)
    where j.id = job_id;
end;
$$;
comment on function private.store_page(uuid, uuid, jsonb) is
'Stores what OCR read on a page: {page, text, width, height, source, layout}.';

create function private.finish_ocr(
    job_id uuid, lease_token uuid, language text, truncated_by text default null
) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    if truncated_by is null and exists (
        select 1 from private.pages_in_work(v_job.version_id) as p where p.needs_ocr
    ) then
        perform private.raise_error(
            'CONFLICT_STATE', 'There are pages left to read.', jsonb_build_object('job_id', job_id)
        );
    end if;
    perform private.describe_reading(
        v_job.version_id,
        coalesce(finish_ocr.language, case when r.version_id is null then v.language else r.language end),
        case when r.version_id is null then v.is_paged else r.is_paged end,
        case when r.version_id is null then v.page_count else r.page_count end,
        coalesce(finish_ocr.truncated_by, case when r.version_id is null then v.truncated_by else r.truncated_by end)
    )
    from public.file_versions as v
    left join private.rereads as r on r.version_id = v.id
    where v.id = v_job.version_id;
    perform private.finish_job(job_id);
    perform private.enqueue(v_job.version_id, 'chunk');
end;
$$;
comment on function private.finish_ocr(uuid, uuid, text, text) is
'Ends the ocr stage with the language of the text, null where it does not tell, and queues chunk. Raises CONFLICT_STATE
while pages are left, unless a limit (truncated_by) ended reading.';

grant execute on function
private.job_pictures(uuid, uuid),
private.store_page(uuid, uuid, jsonb),
private.finish_ocr(uuid, uuid, text, text)
to narwhal_worker;
