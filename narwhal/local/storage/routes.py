"""Which handler answers which request, under which name policies see it (storage.operation())."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response
from starlette.routing import Route

from narwhal.local.storage import buckets, listing, objects, reading, sharing, tus
from narwhal.local.storage.context import Call, Context, Frame, Handler

_TUS = "/upload/resumable"
_KEY = "{bucket}/{key:object_key}"


class _KeyConvertor(Convertor[str]):
    """The rest of a path, line ends included: Starlette's `path` would drop one at the end."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("object_key", _KeyConvertor())


def build_routes(context: Context) -> list[Route]:
    """Return the API's routes, the more specific ones first."""

    def route(
        methods: str,
        path: str,
        handler: Handler,
        operation: str,
        token: str = "required",  # noqa: S107
        *,
        plain: bool = False,
    ) -> Route:
        endpoint = Frame(context, operation, token, plain).wrap(handler)
        made = Route(path, endpoint, methods=methods.split())
        made.methods = set(methods.split())  # Starlette adds HEAD to GET; here it has its own
        return made

    def tus_route(methods: str, path: str, handler: Handler, name: str, token: str) -> Route:
        suffix = "_signed" if path.startswith(f"{_TUS}/sign") else ""
        operation = f"storage.tus.{name}{suffix}"
        return route(methods, path, handler, operation, token, plain=True)

    resumable = []
    for base, token in ((f"{_TUS}/sign", "none"), (_TUS, "required")):
        one = base + "/{upload}"
        for path in (base, f"{base}/"):
            resumable += [
                tus_route("OPTIONS", path, tus.options, "options", "none"),
                tus_route("POST", path, tus.create, "upload.create", token),
            ]
        resumable += [
            tus_route("OPTIONS", one, tus.options, "options", "none"),
            tus_route("HEAD", one, tus.head, "upload.get", "none"),
            tus_route("PATCH", one, tus.patch, "upload.part", token),
            tus_route("DELETE", one, tus.terminate, "upload.delete", token),
            tus_route("POST", one, tus.override, "upload.part", token),
        ]
    return [
        route("GET HEAD", "/status", _status, "storage.status", "none"),
        route("POST", "/bucket", buckets.create_bucket, "storage.bucket.create"),
        route("POST", "/bucket/", buckets.create_bucket, "storage.bucket.create"),
        route("GET", "/bucket", buckets.list_buckets, "storage.bucket.list"),
        route("GET", "/bucket/", buckets.list_buckets, "storage.bucket.list"),
        route("POST", "/bucket/{bucket}/empty", buckets.empty_bucket, "storage.bucket.empty"),
        route("GET", "/bucket/{bucket}", buckets.get_bucket, "storage.bucket.get"),
        route("PUT", "/bucket/{bucket}", buckets.update_bucket, "storage.bucket.update"),
        route("DELETE", "/bucket/{bucket}", buckets.delete_bucket, "storage.bucket.delete"),
        *resumable,
        route("POST", "/object/move", objects.move_object, "storage.object.move"),
        route("POST", "/object/copy", objects.copy_object, "storage.object.copy"),
        route("POST", "/object/list/{bucket}", listing.list_objects, "storage.object.list"),
        route(
            "POST", "/object/list-v2/{bucket}", listing.list_objects_v2, "storage.object.list_v2"
        ),
        route("POST", "/object/sign/{bucket}", sharing.sign_objects, "storage.object.sign_many"),
        route("POST", f"/object/sign/{_KEY}", sharing.sign_object, "storage.object.sign"),
        route(
            "HEAD", f"/object/sign/{_KEY}", reading.head_signed, "storage.object.get_signed", "none"
        ),
        route(
            "GET", f"/object/sign/{_KEY}", reading.get_signed, "storage.object.get_signed", "none"
        ),
        route(
            "POST",
            f"/object/upload/sign/{_KEY}",
            sharing.sign_upload,
            "storage.object.sign_upload_url",
        ),
        route(
            "PUT",
            f"/object/upload/sign/{_KEY}",
            objects.upload_signed,
            "storage.object.upload_signed",
            "none",
        ),
        route(
            "HEAD",
            f"/object/public/{_KEY}",
            reading.head_public,
            "storage.object.info_public",
            "none",
        ),
        route(
            "GET",
            f"/object/public/{_KEY}",
            reading.get_public,
            "storage.object.get_public",
            "none",
        ),
        route(
            "GET",
            f"/object/info/public/{_KEY}",
            reading.info_public,
            "storage.object.info_public",
            "none",
        ),
        route(
            "GET",
            f"/object/info/authenticated/{_KEY}",
            reading.info,
            "object.get_authenticated_info",
        ),
        route(
            "GET", f"/object/info/{_KEY}", reading.info, "object.get_authenticated_info", "optional"
        ),
        route(
            "HEAD",
            f"/object/authenticated/{_KEY}",
            reading.head_object,
            "object.head_authenticated_info",
        ),
        route(
            "GET",
            f"/object/authenticated/{_KEY}",
            reading.get_object,
            "storage.object.get_authenticated",
        ),
        route("DELETE", "/object/{bucket}", objects.remove_objects, "storage.object.delete_many"),
        route(
            "HEAD",
            f"/object/{_KEY}",
            reading.head_object,
            "object.head_authenticated_info",
            "optional",
        ),
        route(
            "GET",
            f"/object/{_KEY}",
            reading.get_object,
            "storage.object.get_authenticated",
            "optional",
        ),
        route("POST", f"/object/{_KEY}", objects.create_object, "storage.object.upload"),
        route("PUT", f"/object/{_KEY}", objects.update_object, "storage.object.upload_update"),
        route("DELETE", f"/object/{_KEY}", objects.remove_object, "storage.object.delete"),
    ]


async def _status(_call: Call) -> Response:
    return Response(status_code=200)
