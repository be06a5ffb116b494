"""All that watches a job. It may fail, and never raises into the job."""
