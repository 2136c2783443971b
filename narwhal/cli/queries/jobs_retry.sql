select
    private.retry_jobs(job_ids => %(job_ids)s::uuid[], error_code => %(error_code)s::text) as retried
