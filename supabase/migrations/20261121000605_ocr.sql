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
        from public.pages as p
        where p.version_id = v_job.version_id
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
    update public.pages as p
    set
        text = r.text, width = coalesce(r.width, p.width), height = coalesce(r.height, p.height),
        source = r.source, layout = r.layout, needs_ocr = false
    from jsonb_to_record(store_page.page) as r (
        page integer, text text, width real, height real, source text, layout jsonb
    )
    where p.version_id = v_job.version_id and p.page = r.page;
    select count(*) filter (where p.needs_ocr), count(*) filter (where p.needs_ocr or p.source <> 'text')
    into v_left, v_total
    from public.pages as p
    where p.version_id = v_job.version_id;
    update public.ingest_jobs as j
    set pages_total = v_total, pages_done = v_total - v_left, progress = 1 - v_left::real / greatest(v_total, 1)
    where j.id = job_id;
end;
$$;
comment on function private.store_page(uuid, uuid, jsonb) is
'Stores what OCR read on a page: {page, text, width, height, source, layout}.';

create function private.finish_ocr(job_id uuid, lease_token uuid, language text) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    if exists (select 1 from public.pages as p where p.version_id = v_job.version_id and p.needs_ocr) then
        perform private.raise_error(
            'CONFLICT_STATE', 'There are pages left to read.', jsonb_build_object('job_id', job_id)
        );
    end if;
    update public.file_versions as v
    set language = coalesce(finish_ocr.language, v.language)
    where v.id = v_job.version_id;
    perform private.finish_job(job_id);
    perform private.enqueue(v_job.version_id, 'chunk');
end;
$$;
comment on function private.finish_ocr(uuid, uuid, text) is
'Ends the ocr stage with the language of the text, null where it does not tell, and queues chunk. Raises CONFLICT_STATE
while pages are left.';

grant execute on function
private.job_pictures(uuid, uuid),
private.store_page(uuid, uuid, jsonb),
private.finish_ocr(uuid, uuid, text)
to narwhal_worker;
