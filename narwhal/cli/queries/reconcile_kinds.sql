select unnest(private.reconcile_kinds()) as kind
