-- Metadata: what people and programs note about a file, and where it came from. Searches can ask for both.

create function private.check_metadata(metadata jsonb) returns void
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    if metadata is null or jsonb_typeof(metadata) <> 'object' then
        perform private.raise_invalid('metadata', 'metadata must be a JSON object.');
    end if;
    if octet_length(metadata::text) > 16384 then
        perform private.raise_invalid(
            'metadata', 'metadata may have at most 16384 bytes.',
            jsonb_build_object('bytes', octet_length(metadata::text), 'limit', 16384)
        );
    end if;
    if jsonb_path_exists(metadata, 'strict $.**{9 to last}') then
        perform private.raise_invalid('metadata', 'metadata may be at most 8 levels deep.', '{"limit": 8}');
    end if;
end;
$$;
comment on function private.check_metadata(jsonb) is 'Raises INVALID_ARGUMENT (field metadata).';

create function private.set_metadata(file_id uuid, metadata jsonb, source text) returns public.nodes
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_node public.nodes;
begin
    perform private.require_writer();
    perform private.check_metadata(metadata);
    if char_length(source) > 255 or source ~ '[\u0001-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]' then
        perform private.raise_invalid(
            'source', 'A source has at most 255 characters, none of them control characters or direction overrides.'
        );
    end if;
    -- it may be on its way to the trash: wait for that, then look
    perform from public.nodes as n where n.id = set_metadata.file_id for no key update;
    v_node := private.require_level(file_id, 'edit');
    if v_node.kind <> 'file' then
        perform private.raise_invalid('file_id', 'Only files have metadata.');
    end if;
    update public.nodes as n
    set
        metadata = set_metadata.metadata,
        source = case when set_metadata.source is null then n.source else nullif(set_metadata.source, '') end,
        updated_at = now()
    where n.id = v_node.id
        and (n.metadata, coalesce(n.source, ''))
        is distinct from (set_metadata.metadata, coalesce(set_metadata.source, n.source, ''))
    returning * into v_node;
    if not found then
        return private.require_level(file_id, 'edit'); -- nothing has changed
    end if;
    return v_node;
end;
$$;
comment on function private.set_metadata(uuid, jsonb, text) is 'Behind public.set_metadata.';
grant execute on function private.set_metadata(uuid, jsonb, text) to anon, authenticated;

create function public.set_metadata(file_id uuid, metadata jsonb, source text default null) returns public.nodes
language sql volatile
security invoker
set search_path = ''
as $$ select private.set_metadata(file_id, metadata, source); $$;
comment on function public.set_metadata(uuid, jsonb, text) is
'Note something about a file, in place of what was noted before, and return the file.

metadata: a JSON object of at most 16384 bytes and 8 levels; {} for none. Searches find files that contain what their
filter "metadata" says. source: where the file came from, null to leave it as it is, "" for nowhere. Versions share it,
copies take it along. Needs level edit. Raises INVALID_ARGUMENT (field file_id, metadata or source), NOT_FOUND,
FORBIDDEN.';
grant execute on function public.set_metadata(uuid, jsonb, text) to anon, authenticated;
