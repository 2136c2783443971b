"""Making signed URLs: to download one or many objects, to upload one."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from narwhal.local.storage import errors
from narwhal.local.storage.bodies import decode_user_metadata
from narwhal.local.storage.context import Call, Context, read_json, take, take_int
from narwhal.local.storage.names import check_bucket_name, check_key
from narwhal.local.storage.rows import find_object, probe_write
from narwhal.local.storage.signing import DOWNLOAD, UPLOAD, UPLOAD_SECONDS

MAX_PATHS = 1000
_MISSING = "Either the object does not exist or you do not have access to it"


async def sign_object(call: Call) -> Response:
    """POST /object/sign/:bucket/* {expiresIn}; images are not transformed here."""
    bucket, key = call.bucket, call.key
    check_bucket_name(bucket)
    check_key(key)
    seconds = take_int(await read_json(call.request), "expiresIn", None, 1, required=True) or 1
    await find_object(call.session, bucket, key, as_service=False)
    return JSONResponse({"signedURL": _signed_url(call.context, bucket, key, seconds)})


async def sign_objects(call: Call) -> Response:
    """POST /object/sign/:bucket {expiresIn, paths}: one answer per path, refusals inside."""
    bucket = call.bucket
    check_bucket_name(bucket)
    body = await read_json(call.request)
    seconds = take_int(body, "expiresIn", None, 1, required=True) or 1
    paths: list[Any] = take(body, "paths", list, required=True)
    if not 1 <= len(paths) <= MAX_PATHS or not all(isinstance(path, str) for path in paths):
        raise errors.invalid_request(f"body/paths must be 1 to {MAX_PATHS} strings")
    async with call.session.transaction() as cursor:
        await cursor.execute(
            "select name from storage.objects where bucket_id = %s and name = any(%s)",
            (bucket, paths),
        )
        visible = {row["name"] for row in await cursor.fetchall()}
    answers = [
        {"error": None, "path": path, "signedURL": _signed_url(call.context, bucket, path, seconds)}
        if path in visible
        else {"error": _MISSING, "path": path, "signedURL": None}
        for path in paths
    ]
    return JSONResponse(answers)


async def sign_upload(call: Call) -> Response:
    """POST /object/upload/sign/:bucket/*: needs what an upload needs; lives for two hours."""
    bucket, key = call.bucket, call.key
    check_bucket_name(bucket)
    check_key(key)
    headers = call.headers
    upsert = headers.get("x-upsert") == "true"
    length = headers.get("content-length", "")
    await probe_write(
        call.session,
        bucket,
        key,
        metadata={
            "mimetype": headers.get("content-type"),
            "contentLength": int(length) if length.isdecimal() else None,
        },
        user_metadata=decode_user_metadata(headers.get("x-metadata")),
        owner=call.session.caller.owner,
        upsert=upsert,
    )
    url = f"{bucket}/{key}"
    token = call.signer.sign(
        url, UPLOAD, UPLOAD_SECONDS, owner=call.session.caller.owner, upsert=upsert
    )
    return JSONResponse({"url": f"/object/upload/sign/{url}?token={token}", "token": token})


def _signed_url(context: Context, bucket: str, key: str, seconds: int) -> str:
    url = f"{bucket}/{key}"
    return f"/object/sign/{url}?token={context.signer.sign(url, DOWNLOAD, seconds)}"
