select r.finding
from private.reconcile_kind(%(kind)s, %(fix)s) as r (finding)
