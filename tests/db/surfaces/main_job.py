"""Uploads, ingestion, search and folders."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from tests.db.conftest import embed
from tests.db.surfaces import SECRET, Calls

CALLS: Calls = {
    "abort_upload": lambda w: {"upload_id": w.upload},
    "begin_upload": lambda w: {"name": "new.txt", "size": 1, "folder_id": w.folder},
    "save_document": lambda w: {"title": "new", "content": "text", "folder_id": w.folder},
    "begin_upload version": lambda w: {"size": 1, "file_id": w.file},
    "cancel_ingest": lambda w: {"file_id": w.file},
    "create_folder": lambda w: {"name": "new", "parent": w.folder},
    "embedding_space": lambda w: {},
    "file_details": lambda w: {"file_id": w.file},
    "file_details folder": lambda w: {"file_id": w.folder},
    "hybrid_search": lambda w: {"query": SECRET, "embedding": Jsonb(embed(SECRET))},
    "hybrid_search keyword": lambda w: {"query": SECRET},
    "hybrid_search file": lambda w: {
        "query": SECRET,
        "embedding": Jsonb(embed(SECRET)),
        "filters": Jsonb({"file_ids": [w.file], "owner_ids": [str(w.owner)]}),
        "explain": True,
    },
    "hybrid_search folder": lambda w: {"query": SECRET, "filters": Jsonb({"folder_id": w.folder})},
    "list_folder": lambda w: {},
    "list_folder folder": lambda w: {"folder": w.folder},
    "related_documents": lambda w: {"file_id": w.file},
    "reprocess_file": lambda w: {"file_id": w.file, "options": Jsonb({"chunk_size": 500})},
    "retry_ingest": lambda w: {"file_id": w.file, "from_stage": "chunk"},
}

COMMON = {"public.embedding_spaces"}
PERSONAL = {"public.owners", "public.user_profiles", "public.uploads"}
HARMLESS = {"embedding_space", "hybrid_search", "hybrid_search keyword", "list_folder"}
# filters that name what is not visible find nothing, as if it did not exist
EMPTY = {"hybrid_search file"}
READING = {
    "embedding_space",
    "file_details",
    "hybrid_search",
    "list_folder",
    "related_documents",
}
OPEN = READING
BARE = {"embedding_space", "list_folder", "related_documents"}
