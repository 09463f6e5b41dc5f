"""Health, metrics and job status over HTTP."""
