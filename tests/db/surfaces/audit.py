"""The audit log."""

from __future__ import annotations

from tests.db.surfaces import Calls

CALLS: Calls = {"list_audit": lambda w: {}, "list_audit node": lambda w: {"node": w.folder}}
PERSONAL = {"public.audit_logs"}
HARMLESS = {"list_audit", "list_audit node"}
READING = {"list_audit"}
OPEN = {"list_audit"}
BARE = {"list_audit", "list_audit node"}
